//! Encoding a chunk against its base.

use super::push::Pushed;
use super::step::{Kind, Step, context};
use super::{CONTEXTS, KEYS, RUN, push, runs, tables_of_contexts};
use crate::rans::encode::Coding;
use crate::rans::{FREQUENCY_BITS, Table, streams_for};
use crate::simd::{self, Level, at_level};
use crate::wire::Put;

/// Fractions of a bit that costs are counted in.
const COST_UNIT: f64 = 16.0;

/// What an element costs whose key is in no table, in these fractions: its entry in the list. Those of half a run fit in 16 bits.
const OUTSIDER_COST: u16 = 48 * 16;

/// Codes whose costs are added up at once.
const WINDOW: usize = 8;

/// What a key costs in each context, with as many as there are codes in a window before the first context and behind the last one.
type Costs = [u16; CONTEXTS + 2 * WINDOW];

/// A table ready to encode with.
#[derive(Clone, Debug)]
pub(super) struct KeyCoder {
    /// By key; not possible if the table lacks it.
    pub(super) codings: [Coding; KEYS],
    costs: [u16; KEYS],
    /// The most frequent key.
    pub(super) stand_in: u8,
}

impl KeyCoder {
    fn new(table: &Table) -> KeyCoder {
        let stand_in = table.keys()[usize::from(table.stand_in())] as u8;
        let mut coder = KeyCoder { codings: [Coding::new(0, 0); KEYS], costs: [OUTSIDER_COST; KEYS], stand_in };
        let mut first = 0;
        for (&key, &frequency) in table.keys().iter().zip(table.frequencies()) {
            coder.codings[usize::from(key)] = Coding::new(frequency, first);
            let bits = f64::from(FREQUENCY_BITS) - f64::from(frequency).log2();
            coder.costs[usize::from(key)] = (bits * COST_UNIT).round() as u16;
            first += frequency;
        }
        coder
    }
}

/// What the chunks of a segment are encoded with.
#[derive(Clone, Debug)]
pub(crate) struct DeltaCoder {
    pub(super) kind: Kind,
    origin: i16,
    /// The table for each context.
    tables_of_contexts: [u8; CONTEXTS],
    pub(super) codes: KeyCoder,
    differences: Vec<KeyCoder>,
    /// What each key costs.
    costs: Box<[Costs; KEYS]>,
    /// By table and key (`KEYS * table + key`): where its slots begin, in the lower 16 bits, and its frequency in the upper ones.
    pub(super) packed: Vec<u32>,
}

impl DeltaCoder {
    /// With the table of codes and those for differences.
    pub(super) fn new(kind: Kind, origin: i16, thresholds: &[u8], tables: &[Table]) -> DeltaCoder {
        let tables_of_contexts = tables_of_contexts(thresholds);
        let differences: Vec<KeyCoder> = tables[1..].iter().map(KeyCoder::new).collect();
        let mut costs = Box::new([[0; CONTEXTS + 2 * WINDOW]; KEYS]);
        for at in 0..CONTEXTS + 2 * WINDOW {
            let table = tables_of_contexts[at.saturating_sub(WINDOW).min(CONTEXTS - 1)];
            let of_table = &differences[usize::from(table)].costs;
            costs.iter_mut().zip(of_table).for_each(|(costs, cost)| costs[at] = *cost);
        }
        let packed = differences.iter().flat_map(|table| table.codings.map(Coding::packed)).collect();
        DeltaCoder { kind, origin, tables_of_contexts, codes: KeyCoder::new(&tables[0]), differences, costs, packed }
    }

    /// The coding at this place among the packed ones.
    #[inline(always)]
    pub(super) fn coding(&self, place: u16) -> Coding {
        self.differences[usize::from(place) / KEYS].codings[usize::from(place) % KEYS]
    }

    /// What a run costs with each of the codes from `first` on, without the codes themselves.
    fn costs_from(&self, first: i32, keys: &[u8; RUN], exponents: &[u8; RUN]) -> [u32; WINDOW] {
        let place = i32::from(self.origin) + first;
        let mut costs = [0; WINDOW];
        for half in [0..RUN / 2, RUN / 2..RUN] {
            let mut sums = [0u16; WINDOW];
            for (&key, &exponent) in keys[half.clone()].iter().zip(&exponents[half]) {
                let context = (place - i32::from(exponent)).clamp(-(WINDOW as i32), CONTEXTS as i32);
                let of_key = &self.costs[usize::from(key) % KEYS];
                let at = (context + WINDOW as i32) as usize;
                let window = of_key[at..].first_chunk::<WINDOW>().expect("there are as many behind the last context");
                sums.iter_mut().zip(window).for_each(|(sum, cost)| *sum += cost);
            }
            costs.iter_mut().zip(sums).for_each(|(cost, sum)| *cost += u32::from(sum));
        }
        costs
    }

    /// What a code itself costs, if there is such a code and it is not that of runs which are as in the base.
    fn cost_of_code(&self, code: i32) -> Option<u32> {
        let code = usize::try_from(code).ok().filter(|&code| code > 0 && code < KEYS)?;
        self.codes.codings[code].is_possible().then(|| self.codes.costs[code].into())
    }

    /// The code with which a run costs least, or close to it: `None` if there is none at all.
    pub(super) fn best_code(&self, keys: &[u8; RUN], exponents: &[u8; RUN]) -> Option<u8> {
        if self.codes.codings[0].is_possible() && keys.iter().all(|&key| key == 0) {
            return Some(0);
        }
        // Costs have one minimum, or nearly so. Where it should be there may be no code.
        let expected = (octave(keys, exponents) - i32::from(self.origin)).clamp(1, KEYS as i32 - 1);
        let is_code = |code: &i32| self.cost_of_code(*code).is_some();
        let mut middle =
            (0..KEYS as i32).find_map(|away| [expected - away, expected + away].into_iter().find(is_code))?;
        let mut best = (u32::MAX, middle);
        loop {
            let first = middle - WINDOW as i32 / 2;
            for (code, cost) in (first..).zip(self.costs_from(first, keys, exponents)) {
                let cost = self.cost_of_code(code).map_or(u32::MAX, |own| own + cost);
                best = best.min((cost, code));
            }
            // Unless it is at the end of those that were looked at, beyond which there may be a better one.
            let is_inside = best.1 > first && best.1 < first + WINDOW as i32 - 1;
            if is_inside || best.1 == middle {
                return Some(best.1 as u8);
            }
            middle = best.1;
        }
    }
}

/// What an origin and a code should add up to for a run, as far as can be told from its mean: the context of elements that change
/// by a 2^14th of a unit in the last place on average is then 0.
pub(super) fn octave(keys: &[u8; RUN], exponents: &[u8; RUN]) -> i32 {
    /// The exponent of 1 in a number of 64 bits, less that of the largest element here.
    const ONE: u64 = 1023 - 256;
    /// The least size of a difference with each key.
    static SIZES: [f64; KEYS] = {
        let mut sizes = [0.0; KEYS];
        let mut key = 0;
        while key < KEYS {
            let bucket = key as u64 / 2;
            sizes[key] = if bucket < 2 { bucket as f64 } else { ((2 | bucket & 1) << (bucket / 2 - 1)) as f64 };
            key += 1;
        }
        sizes
    };
    // Several sums, none of which waits for the others.
    let mut sums = [0.0; 4];
    for (keys, exponents) in keys.as_chunks::<4>().0.iter().zip(exponents.as_chunks::<4>().0) {
        for lane in 0..4 {
            let unit = f64::from_bits((u64::from(exponents[lane]) + ONE) << 52);
            sums[lane] += SIZES[usize::from(keys[lane]) % KEYS] * unit;
        }
    }
    let sum: f64 = sums.iter().sum();
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
    pub(super) fn measure(&mut self, kind: Kind, bytes: &[u8], base: &[u8], level: Level) {
        let into = self;
        at_level!(level, measure(into: &mut Measured, kind: Kind, bytes: &[u8], base: &[u8]));
    }

    /// The keys and exponents of each run.
    pub(super) fn runs(&self) -> impl Iterator<Item = (&[u8; RUN], &[u8; RUN])> {
        self.keys.as_chunks().0.iter().zip(self.exponents.as_chunks().0)
    }
}

/// [`Measured::measure`] for any level.
#[inline(always)]
fn measure(into: &mut Measured, kind: Kind, bytes: &[u8], base: &[u8]) {
    let padded = runs(bytes.len() / kind.size()) * RUN;
    // Of these every element is written.
    into.keys.resize(padded, 0);
    into.extras.resize(padded, 0);
    into.exponents.resize(padded, 0);
    let (mut elements, mut base_elements) = ([0; RUN], [0; RUN]);
    let runs = bytes.chunks(RUN * kind.size()).zip(base.chunks(RUN * kind.size()));
    let keys = into.keys.as_chunks_mut::<RUN>().0.iter_mut();
    let measured = keys.zip(into.extras.as_chunks_mut::<RUN>().0).zip(into.exponents.as_chunks_mut::<RUN>().0);
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

/// Memory that is used again from chunk to chunk.
#[derive(Debug)]
pub(crate) struct Buffers {
    level: Level,
    measured: Measured,
    codes: Vec<u8>,
    /// Where each element's coding is among the packed ones.
    places: Vec<u16>,
    outsiders: Vec<u8>,
    /// Of each stream, at the end of its part.
    words: Vec<u16>,
}

impl Buffers {
    /// For encoding at this level.
    pub(crate) fn new(level: Level) -> Buffers {
        Buffers {
            level,
            measured: Measured::default(),
            codes: Vec::new(),
            places: Vec::new(),
            outsiders: Vec::new(),
            words: Vec::new(),
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
    let Buffers { level, measured, codes, places, outsiders, words } = buffers;
    let kind = coder.kind;
    measured.measure(kind, bytes, base, *level);
    codes.clear();
    for (keys, exponents) in measured.runs() {
        let Some(code) = coder.best_code(keys, exponents) else { return false };
        codes.push(code);
    }
    outsiders.clear();
    if !place_all(coder, bytes, measured, codes, places, outsiders) {
        return false;
    }
    let count = outsiders.len() / (super::OUTSIDER_GAP_BYTES + kind.size());
    let mut pushed = Pushed::new(streams, measured.keys.len(), kind, words);
    push::push_all(coder, measured, codes, places, &mut pushed, *level);
    stored.push(streams as u8);
    stored.put_u16(count as u16);
    (0..streams).for_each(|stream| stored.put_u32(pushed.words_of(stream).len() as u32));
    pushed.states[..streams].as_flattened().iter().for_each(|&state| stored.put_u32(state));
    for stream in 0..streams {
        let words = pushed.words_of(stream);
        let begin = stored.len();
        stored.resize(begin + size_of_val(words), 0);
        for (bytes, word) in stored[begin..].as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
    }
    stored.extend_from_slice(outsiders);
    true
}

impl Default for Buffers {
    fn default() -> Self {
        Buffers::new(simd::level())
    }
}

/// The largest gap in the list of outsiders.
const LONGEST_GAP: usize = u16::MAX as usize;

/// Says where the coding of each element is, in runs of which something changed. Lists the elements whose key their table lacks, and puts
/// the stand-in in the place of that. Returns `false` if there are too many.
fn place_all(
    coder: &DeltaCoder,
    bytes: &[u8],
    measured: &mut Measured,
    codes: &[u8],
    places: &mut Vec<u16>,
    outsiders: &mut Vec<u8>,
) -> bool {
    let size = coder.kind.size();
    let (mut count, mut position) = (0, 0);
    // Those of runs without changes are never looked at.
    places.resize(measured.keys.len(), 0);
    for (run, &code) in codes.iter().enumerate().filter(|(_, code)| **code > 0) {
        let place = i32::from(coder.origin) + i32::from(code);
        let begin = run * RUN;
        let (keys, exponents) = (&mut measured.keys[begin..begin + RUN], &measured.exponents[begin..begin + RUN]);
        for (lane, place_of) in places[begin..begin + RUN].iter_mut().enumerate() {
            let table = coder.tables_of_contexts[context(place, exponents[lane].into())];
            let first = usize::from(table) * KEYS;
            *place_of = (first + usize::from(keys[lane])) as u16;
            if coder.packed[usize::from(*place_of)] >> 16 > 0 {
                continue;
            }
            let stand_in = coder.differences[usize::from(table)].stand_in;
            *place_of = (first + usize::from(stand_in)) as u16;
            (keys[lane], measured.extras[begin + lane]) = (stand_in, 0);
            // What the last run was filled up with comes to nothing.
            let at = begin + lane;
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
