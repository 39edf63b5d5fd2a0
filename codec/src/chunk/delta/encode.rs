//! Encoding a chunk against its base.

use super::step::{Kind, Step, context, extra_bits};
use super::{CONTEXTS, GROUPS, KEYS, LANES, MAX_STREAMS, RUN, runs, tables_of_contexts};
use crate::rans::encode::Coding;
use crate::rans::{FREQUENCY_BITS, STATE_MIN, Table, streams_for};
use crate::simd::Level;
use crate::wire::Put;

/// Fractions of a bit that costs are counted in.
pub(super) const COST_UNIT: f64 = 16.0;

/// What an element costs whose key is in no table, in these fractions: its entry in the list.
const OUTSIDER_COST: u32 = 48 * 16;

/// A table ready to encode with.
#[derive(Clone, Debug)]
struct KeyCoder {
    /// By key; not possible if the table lacks it.
    codings: [Coding; KEYS],
    costs: [u32; KEYS],
    /// The most frequent key.
    stand_in: u8,
}

impl KeyCoder {
    fn new(table: &Table) -> KeyCoder {
        let stand_in = table.keys()[usize::from(table.stand_in())] as u8;
        let mut coder = KeyCoder { codings: [Coding::new(0, 0); KEYS], costs: [OUTSIDER_COST; KEYS], stand_in };
        let mut first = 0;
        for (&key, &frequency) in table.keys().iter().zip(table.frequencies()) {
            coder.codings[usize::from(key)] = Coding::new(frequency, first);
            let bits = f64::from(FREQUENCY_BITS) - f64::from(frequency).log2();
            coder.costs[usize::from(key)] = (bits * COST_UNIT).round() as u32;
            first += frequency;
        }
        coder
    }
}

/// What the chunks of a segment are encoded with.
#[derive(Clone, Debug)]
pub(crate) struct DeltaCoder {
    kind: Kind,
    origin: i16,
    /// The table for each context.
    tables_of_contexts: [u8; CONTEXTS],
    codes: KeyCoder,
    differences: Vec<KeyCoder>,
    /// What each key costs in each context.
    costs: Vec<[u32; KEYS]>,
}

impl DeltaCoder {
    /// With the table of codes and those for differences.
    pub(super) fn new(kind: Kind, origin: i16, thresholds: &[u8], tables: &[Table]) -> DeltaCoder {
        let tables_of_contexts = tables_of_contexts(thresholds);
        let differences: Vec<KeyCoder> = tables[1..].iter().map(KeyCoder::new).collect();
        let costs = tables_of_contexts.iter().map(|&table| differences[usize::from(table)].costs).collect();
        DeltaCoder { kind, origin, tables_of_contexts, codes: KeyCoder::new(&tables[0]), differences, costs }
    }

    fn table(&self, code: u8, exponent: u8) -> usize {
        usize::from(self.tables_of_contexts[context(i32::from(self.origin) + i32::from(code), exponent.into())])
    }

    /// What a run costs with this code, if there is such a code.
    fn cost(&self, code: i32, keys: &[u8; RUN], exponents: &[u8; RUN]) -> Option<u32> {
        let code = u8::try_from(code).ok().filter(|&code| code > 0 && usize::from(code) < KEYS)?;
        if !self.codes.codings[usize::from(code)].is_possible() {
            return None;
        }
        let place = i32::from(self.origin) + i32::from(code);
        let costs: &[[u32; KEYS]; CONTEXTS] = self.costs.as_slice().try_into().expect("one for each context");
        let element =
            |(&key, &exponent): (&u8, &u8)| costs[context(place, exponent.into()) % CONTEXTS][usize::from(key) % KEYS];
        Some(self.codes.costs[usize::from(code)] + keys.iter().zip(exponents).map(element).sum::<u32>())
    }

    /// The code with which a run costs least, or close to it: `None` if there is none at all.
    pub(super) fn best_code(&self, keys: &[u8; RUN], exponents: &[u8; RUN]) -> Option<u8> {
        if self.codes.codings[0].is_possible() && keys.iter().all(|&key| key == 0) {
            return Some(0);
        }
        let cost = |code: i32| self.cost(code, keys, exponents).map(|cost| (cost, code));
        let first = (octave(keys, exponents) - i32::from(self.origin)).clamp(1, KEYS as i32 - 1);
        // Costs have one minimum, or nearly so. Where it begins there may be no code.
        let nearest = (0..KEYS as i32).find_map(|away| cost(first - away).or_else(|| cost(first + away)));
        let mut best = nearest?;
        for direction in [-1, 1] {
            let mut code = best.1 + direction;
            while let Some(next) = cost(code).filter(|next| next.0 < best.0) {
                best = next;
                code += direction;
            }
        }
        Some(best.1 as u8)
    }
}

/// What an origin and a code should add up to for a run, as far as can be told from its mean: the context of elements that change
/// by a 2^14th of a unit in the last place on average is then 0.
pub(super) fn octave(keys: &[u8; RUN], exponents: &[u8; RUN]) -> i32 {
    /// The exponent of 1 in a number of 64 bits, less that of the largest element here.
    const ONE: u64 = 1023 - 256;
    let sum: f64 = keys
        .iter()
        .zip(exponents)
        .map(|(&key, &exponent)| {
            let size = f64::from(Step { key: key & !1, extra: 0 }.difference() as u32);
            size * f64::from_bits((u64::from(exponent) + ONE) << 52)
        })
        .sum();
    (sum.to_bits() >> 52) as i32 - ONE as i32 - RUN.ilog2() as i32 + 14
}

/// A chunk or a sample, measured against its base: whole runs, the last one filled up with elements like the base.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) keys: Vec<u8>,
    pub(super) extras: Vec<u32>,
    /// Of the base's elements.
    pub(super) exponents: Vec<u8>,
}

impl Measured {
    /// Measures elements against those of the base, which are of the same kind and as many.
    pub(super) fn measure(&mut self, kind: Kind, bytes: &[u8], base: &[u8]) {
        let padded = runs(bytes.len() / kind.size()) * RUN;
        // Of these every element is written.
        self.keys.resize(padded, 0);
        self.extras.resize(padded, 0);
        self.exponents.resize(padded, 0);
        let (mut elements, mut base_elements) = ([0; RUN], [0; RUN]);
        let runs = bytes.chunks(RUN * kind.size()).zip(base.chunks(RUN * kind.size()));
        let keys = self.keys.as_chunks_mut::<RUN>().0.iter_mut();
        let measured = keys.zip(self.extras.as_chunks_mut::<RUN>().0).zip(self.exponents.as_chunks_mut::<RUN>().0);
        for ((bytes, base), ((keys, extras), exponents)) in runs.zip(measured) {
            kind.load(bytes, &mut elements);
            kind.load(base, &mut base_elements);
            for lane in 0..RUN {
                let step = Step::of(kind.difference(elements[lane], base_elements[lane]));
                keys[lane] = step.key;
                extras[lane] = step.extra;
                exponents[lane] = kind.exponent(base_elements[lane]) as u8;
            }
        }
    }

    /// The keys and exponents of each run.
    pub(super) fn runs(&self) -> impl Iterator<Item = (&[u8; RUN], &[u8; RUN])> {
        self.keys.as_chunks().0.iter().zip(self.exponents.as_chunks().0)
    }
}

/// Memory that is used again from chunk to chunk.
#[derive(Debug)]
pub(crate) struct Buffers {
    level: Level,
    measured: Measured,
    codes: Vec<u8>,
    outsiders: Vec<u8>,
    /// Of each stream, the last one first.
    words: [Vec<u16>; MAX_STREAMS],
}

impl Buffers {
    /// For encoding at this level.
    pub(crate) fn new(level: Level) -> Buffers {
        Buffers {
            level,
            measured: Measured::default(),
            codes: Vec::new(),
            outsiders: Vec::new(),
            words: Default::default(),
        }
    }
}

/// Appends the chunk of `bytes` against `base`, whose elements are of the same kind, to `stored`. Returns `false`, with `stored` in
/// an unspecified state beyond its old end, when too many elements are unlike what the tables were made for.
pub(crate) fn encode(
    coder: &DeltaCoder,
    bytes: &[u8],
    base: &[u8],
    buffers: &mut Buffers,
    stored: &mut Vec<u8>,
) -> bool {
    encode_in(streams_for(bytes.len() / coder.kind.size()), coder, bytes, base, buffers, stored)
}

/// The same in so many streams.
pub(crate) fn encode_in(
    streams: usize,
    coder: &DeltaCoder,
    bytes: &[u8],
    base: &[u8],
    buffers: &mut Buffers,
    stored: &mut Vec<u8>,
) -> bool {
    let Buffers { measured, codes, outsiders, words, .. } = buffers;
    let kind = coder.kind;
    measured.measure(kind, bytes, base);
    codes.clear();
    for (keys, exponents) in measured.runs() {
        let Some(code) = coder.best_code(keys, exponents) else { return false };
        codes.push(code);
    }
    outsiders.clear();
    if !list_outsiders(coder, bytes, measured, codes, outsiders) {
        return false;
    }
    let count = outsiders.len() / (super::OUTSIDER_GAP_BYTES + kind.size());
    let states = push_all(coder, measured, codes, streams, words);
    stored.push(streams as u8);
    stored.put_u16(count as u16);
    words[..streams].iter().for_each(|words| stored.put_u32(words.len() as u32));
    states[..streams].as_flattened().iter().for_each(|&state| stored.put_u32(state));
    for words in &words[..streams] {
        words.iter().rev().for_each(|&word| stored.put_u16(word));
    }
    stored.extend_from_slice(outsiders);
    true
}

/// The largest gap in the list of outsiders.
const LONGEST_GAP: usize = u16::MAX as usize;

/// Lists the elements whose key their table lacks, and puts the stand-in in the place of that. Returns `false` if there are too many.
fn list_outsiders(
    coder: &DeltaCoder,
    bytes: &[u8],
    measured: &mut Measured,
    codes: &[u8],
    outsiders: &mut Vec<u8>,
) -> bool {
    let size = coder.kind.size();
    let (mut count, mut position) = (0, 0);
    for (run, &code) in codes.iter().enumerate().filter(|(_, code)| **code > 0) {
        for at in run * RUN..(run + 1) * RUN {
            let table = &coder.differences[coder.table(code, measured.exponents[at])];
            if table.codings[usize::from(measured.keys[at])].is_possible() {
                continue;
            }
            (measured.keys[at], measured.extras[at]) = (table.stand_in, 0);
            // What the last run was filled up with comes to nothing.
            let Some(element) = bytes.get(at * size..(at + 1) * size) else { continue };
            while at - position > LONGEST_GAP {
                // An element on the way, which is what it is in any case.
                position += LONGEST_GAP;
                outsiders.put_u16(LONGEST_GAP as u16);
                outsiders.extend_from_slice(&bytes[position * size..(position + 1) * size]);
                count += 1;
            }
            outsiders.put_u16((at - position) as u16);
            outsiders.extend_from_slice(element);
            position = at;
            count += 1;
        }
    }
    count <= usize::from(u16::MAX)
}

/// The lanes of each stream.
type States = [[u32; LANES]; MAX_STREAMS];

/// Adds a symbol to a state.
#[inline(always)]
fn push_symbol(state: &mut u32, coding: Coding, words: &mut Vec<u16>) {
    if coding.emits(*state) {
        words.push(*state as u16);
        *state >>= 16;
    }
    let (high, slot) = coding.add(*state);
    *state = high | slot;
}

/// Adds `count` bits, 1 to 16, to a state.
#[inline(always)]
fn push_bits(state: &mut u32, bits: u32, count: u32, words: &mut Vec<u16>) {
    if *state >> (32 - count) > 0 {
        words.push(*state as u16);
        *state >>= 16;
    }
    *state = *state << count | bits;
}

/// Codes everything, the last first, and gives the states that decoding begins with.
fn push_all(
    coder: &DeltaCoder,
    measured: &Measured,
    codes: &[u8],
    streams: usize,
    words: &mut [Vec<u16>; MAX_STREAMS],
) -> States {
    let mut states = [[STATE_MIN; LANES]; MAX_STREAMS];
    words.iter_mut().for_each(Vec::clear);
    let keys = measured.keys.as_chunks::<LANES>().0;
    let extras = measured.extras.as_chunks::<LANES>().0;
    let exponents = measured.exponents.as_chunks::<LANES>().0;
    for (run, &code) in codes.iter().enumerate().rev().filter(|(_, code)| **code > 0) {
        for group in (0..GROUPS).rev() {
            let (states, words) = (&mut states[group % streams], &mut words[group % streams]);
            let at = run * GROUPS + group;
            let (keys, extras, exponents) = (&keys[at], &extras[at], &exponents[at]);
            if coder.kind.width == 32 {
                for lane in (0..LANES).rev() {
                    let bits = extra_bits(keys[lane]);
                    if bits > 16 {
                        push_bits(&mut states[lane], extras[lane] >> 16, bits - 16, words);
                    }
                }
            }
            for lane in (0..LANES).rev() {
                let bits = extra_bits(keys[lane]).min(16);
                if bits > 0 {
                    push_bits(&mut states[lane], extras[lane] & ((1 << bits) - 1), bits, words);
                }
            }
            for lane in (0..LANES).rev() {
                let table = &coder.differences[coder.table(code, exponents[lane])];
                push_symbol(&mut states[lane], table.codings[usize::from(keys[lane]) % KEYS], words);
            }
        }
    }
    for (group, codes) in codes.chunks(LANES).enumerate().rev() {
        let (states, words) = (&mut states[group % streams], &mut words[group % streams]);
        for lane in (0..LANES).rev() {
            let code = codes.get(lane).copied().unwrap_or(coder.codes.stand_in);
            push_symbol(&mut states[lane], coder.codes.codings[usize::from(code) % KEYS], words);
        }
    }
    states
}
