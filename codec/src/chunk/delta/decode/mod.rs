//! Decoding a chunk against its base: [`definition`] is plain, the others do the same to many elements at once.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod definition;
#[cfg(target_arch = "x86_64")]
mod search;

use std::cell::OnceCell;

use super::step::Kind;
use super::{Against, CONTEXTS, KEYS, LANES, MAX_STREAMS, OUTSIDER_GAP_BYTES, RUN, convert, runs, tables_of_contexts};
use crate::checksum::checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::rans::{FREQUENCY_BITS, STATE_MIN, TOTAL, Table};
use crate::simd::Level;
use crate::split::Element;
use crate::wire::Reader;

/// Bytes that can be read behind the words of a chunk: what a run may take from a stream at most, three words a lane, and one
/// load more.
const PADDING: usize = RUN * 3 * 2 + 64;

/// Memory that decoding uses again from chunk to chunk.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    ready: Prepared,
    codes: Vec<u8>,
    words: Vec<u8>,
    /// The base's elements, if they had to be converted.
    converted: Vec<u8>,
}

/// The tables of a segment, ready to decode with.
#[derive(Debug)]
struct Ready {
    kind: Kind,
    tables: Vec<Table>,
    thresholds: Vec<u8>,
    /// For each context where its table begins among the slots.
    begins: [u16; CONTEXTS],
    #[cfg(target_arch = "x86_64")]
    tables_of_contexts: [u8; CONTEXTS],
    /// All slots of the tables for differences, made when they are first needed: they are up to 256 KiB.
    slots: OnceCell<Vec<u32>>,
    /// Those of the table of codes.
    codes: Vec<u32>,
    /// What is looked up in instead, where that is possible.
    #[cfg(target_arch = "x86_64")]
    search: Option<Box<search::Search>>,
}

/// A slot: its key in bits 0 to 6, its rank in bits 7 to 18, the frequency of the key in bits 19 to 31.
fn slot(key: u16, rank: u16, frequency: u16) -> u32 {
    u32::from(key) | u32::from(rank) << 7 | u32::from(frequency) << 19
}

/// The slots of these tables.
fn slots(tables: &[Table]) -> Vec<u32> {
    let mut slots = Vec::with_capacity(tables.len() * TOTAL as usize);
    for table in tables {
        for (&key, &frequency) in table.keys().iter().zip(table.frequencies()) {
            slots.extend((0..frequency).map(|rank| slot(key, rank, frequency)));
        }
    }
    slots
}

impl Ready {
    fn new(kind: Kind, tables: &[Table], thresholds: &[u8]) -> Result<Ready> {
        check_keys(kind, tables)?;
        let contexts = tables_of_contexts(thresholds);
        Ok(Ready {
            kind,
            tables: tables.to_vec(),
            thresholds: thresholds.to_vec(),
            begins: contexts.map(|table| u16::from(table) << FREQUENCY_BITS),
            #[cfg(target_arch = "x86_64")]
            tables_of_contexts: contexts,
            slots: OnceCell::new(),
            codes: slots(&tables[..1]),
            #[cfg(target_arch = "x86_64")]
            search: (kind.width <= 16).then(|| search::Search::new(&tables[1..], &contexts)).flatten(),
        })
    }

    /// The slots of the tables for differences.
    fn slots(&self) -> &[u32] {
        self.slots.get_or_init(|| slots(&self.tables[1..]))
    }
}

/// The tables of the segments that were decoded last.
#[derive(Debug, Default)]
struct Prepared {
    kept: Vec<Ready>,
    /// The one that is replaced next.
    oldest: usize,
}

impl Prepared {
    fn prepare(&mut self, kind: Kind, against: &Against<'_>) -> Result<&Ready> {
        /// So many are kept: they are up to 272 KiB each.
        const KEPT: usize = 4;
        let Against { delta, tables, .. } = against;
        let same =
            |ready: &Ready| ready.kind == kind && ready.thresholds == delta.thresholds && ready.tables == *tables;
        if let Some(at) = self.kept.iter().position(same) {
            return Ok(&self.kept[at]);
        }
        let ready = Ready::new(kind, tables, &delta.thresholds)?;
        if self.kept.len() < KEPT {
            self.kept.push(ready);
            return Ok(&self.kept[self.kept.len() - 1]);
        }
        self.oldest = (self.oldest + 1) % KEPT;
        self.kept[self.oldest] = ready;
        Ok(&self.kept[self.oldest])
    }
}

/// What is left of a chunk's streams.
struct Streams<'a> {
    states: [[u32; LANES]; MAX_STREAMS],
    /// The words of all streams, with [`PADDING`] behind them.
    words: &'a [u8],
    /// Where in there the next word of each stream is, and where they end.
    next: [usize; MAX_STREAMS],
    ends: [usize; MAX_STREAMS],
    count: usize,
}

impl<'a> Streams<'a> {
    /// Takes the streams off the front of `reader`, copying their words to `words`.
    fn read(reader: &mut Reader<'_>, count: usize, words: &'a mut Vec<u8>) -> Result<Streams<'a>> {
        let (mut next, mut ends, mut end) = ([0; MAX_STREAMS], [0; MAX_STREAMS], 0);
        for stream in 0..count {
            next[stream] = end;
            // Each is below 2^33, so that the sum cannot overflow.
            end += reader.u32()? as usize * 2;
            ends[stream] = end;
        }
        let mut states = [[STATE_MIN; LANES]; MAX_STREAMS];
        for state in states[..count].as_flattened_mut() {
            *state = reader.u32()?;
            if *state < STATE_MIN {
                return Err(Error::corrupt("a state of the entropy coder is too small"));
            }
        }
        let stored = reader.take(end)?;
        words.clear();
        words.extend_from_slice(stored);
        words.resize(end + PADDING, 0);
        Ok(Streams { states, words, next, ends, count })
    }

    /// Fails if more words were taken than there are. To be called at least once a run.
    fn check(&self) -> Result<()> {
        if self.next.iter().zip(&self.ends).any(|(next, end)| next > end) {
            return Err(Error::corrupt("the words of the entropy coder come to an end too early"));
        }
        Ok(())
    }

    /// Fails unless everything has come out even.
    fn finish(self) -> Result<()> {
        if self.next != self.ends || self.states.as_flattened().iter().any(|&state| state != STATE_MIN) {
            return Err(Error::corrupt("the entropy coder does not end as it should"));
        }
        Ok(())
    }
}

/// A run of which something changed.
struct Run<'a> {
    /// What the exponent of an element is taken from to give its context.
    place: i32,
    /// The base's elements, and room for the others.
    base: &'a [u8],
    out: &'a mut [u8],
}

/// Takes the checksum of the base off the front of `reader`, and fails unless the base has it and as many elements as `len` bytes.
pub(super) fn check_base(reader: &mut Reader<'_>, element: Element, against: &Against<'_>, len: usize) -> Result<()> {
    let (elements, base_elements) = (len / element.size(), against.base.len() / against.delta.element.size());
    if !len.is_multiple_of(element.size()) || elements != base_elements {
        return Err(Error::corrupt(format!("{} bytes of a base are no match for {len}", against.base.len())));
    }
    if reader.u64()? != checksum(against.base) {
        return Err(Error::new(ErrorKind::WrongBase, "the base does not hold what this was coded against"));
    }
    Ok(())
}

/// What elements are that are coded as differences, in a segment that has tables for them.
pub(super) fn checked_kind(element: Element, against: &Against<'_>) -> Result<Kind> {
    let kind =
        Kind::of(element).ok_or_else(|| Error::corrupt("a chunk of integers is coded as differences of floats"))?;
    if against.tables.len() < 2 || against.tables.len() != against.delta.thresholds.len() + 2 {
        return Err(Error::corrupt("a chunk is coded as differences, and its segment has no tables for them"));
    }
    Ok(kind)
}

/// Fails unless the first of these tables has codes and the others have keys of differences of this kind.
pub(super) fn check_keys(kind: Kind, tables: &[Table]) -> Result<()> {
    let differences = tables[1..].iter().map(|table| (table, usize::from(kind.keys())));
    for (table, keys) in differences.chain([(&tables[0], KEYS)]) {
        if let Some(key) = table.keys().iter().find(|&&key| usize::from(key) >= keys) {
            return Err(Error::corrupt(format!("a table has key {key}, which is that of nothing")));
        }
    }
    Ok(())
}

/// Takes the numbers of streams and of outsiders off the front of `reader`.
pub(super) fn read_counts(reader: &mut Reader<'_>) -> Result<(usize, usize)> {
    let (streams, outsiders) = (usize::from(reader.u8()?), usize::from(reader.u16()?));
    if !streams.is_power_of_two() || streams > MAX_STREAMS {
        return Err(Error::corrupt(format!("a chunk of differences has {streams} streams")));
    }
    Ok((streams, outsiders))
}

/// Decodes a chunk that is coded against its base, or is just as that (`coded` says which), into `out`.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when `stored` is not what an encoder writes, [`ErrorKind::WrongBase`] when the base is not the one that it
/// was coded against.
pub(crate) fn decode(
    reader: &mut Reader<'_>,
    coded: bool,
    element: Element,
    against: &Against<'_>,
    out: &mut [u8],
    (level, scratch): (Level, &mut Scratch),
) -> Result<()> {
    check_base(reader, element, against, out.len())?;
    if coded {
        return decode_coded(reader, element, against, out, level, scratch);
    }
    out.copy_from_slice(elements_of_base(element, against, &mut scratch.converted));
    Ok(())
}

fn decode_coded(
    reader: &mut Reader<'_>,
    element: Element,
    against: &Against<'_>,
    out: &mut [u8],
    level: Level,
    scratch: &mut Scratch,
) -> Result<()> {
    let Scratch { ready, codes, words, converted } = scratch;
    let delta = against.delta;
    let kind = checked_kind(element, against)?;
    let base = elements_of_base(element, against, converted);
    let ready = ready.prepare(kind, against)?;
    let (streams, outsiders) = read_counts(reader)?;
    let mut streams = Streams::read(reader, streams, words)?;
    let elements = out.len() / kind.size();
    definition::codes(ready, &mut streams, runs(elements), codes)?;
    let run_bytes = RUN * kind.size();
    let done = whole_runs(level, ready, &mut streams, delta.origin, codes, base, out);
    streams.check()?;
    let rest = base[done * run_bytes..].chunks(run_bytes).zip(out[done * run_bytes..].chunks_mut(run_bytes));
    for (&code, (base, out)) in codes[done..].iter().zip(rest) {
        if code == 0 {
            out.copy_from_slice(base);
            continue;
        }
        let place = i32::from(delta.origin) + i32::from(code);
        let run = Run { place, base, out };
        definition::run(kind, ready, &mut streams, run);
        streams.check()?;
    }
    streams.finish()?;
    let mut position = 0;
    for entry in
        reader.take(outsiders * (OUTSIDER_GAP_BYTES + kind.size()))?.chunks_exact(OUTSIDER_GAP_BYTES + kind.size())
    {
        let (gap, element) = entry.split_at(OUTSIDER_GAP_BYTES);
        position += usize::from(u16::from_le_bytes([gap[0], gap[1]]));
        out.get_mut(position * kind.size()..(position + 1) * kind.size())
            .ok_or_else(|| Error::corrupt("an element lies beyond the end of its chunk"))?
            .copy_from_slice(element);
    }
    Ok(())
}

/// Decodes all runs at once that are whole, if there is a way to; gives their number, or 0.
#[cfg(target_arch = "x86_64")]
fn whole_runs(
    level: Level,
    ready: &Ready,
    streams: &mut Streams<'_>,
    origin: i16,
    codes: &[u8],
    base: &[u8],
    out: &mut [u8],
) -> usize {
    let whole = out.len() / ready.kind.size() / RUN;
    let bytes = whole * RUN * ready.kind.size();
    let runs = (&codes[..whole], &base[..bytes], &mut out[..bytes]);
    match (level, streams.count, &ready.search) {
        (Level::Avx512 | Level::Avx512Vbmi2, 2 | 4, Some(search)) => {
            // SAFETY: a level is only given where the processor has what it stands for.
            unsafe { avx512::runs(ready.kind, search, streams, origin, runs, level == Level::Avx512Vbmi2) };
        }
        // SAFETY: as above.
        (Level::Avx2 | Level::Avx512 | Level::Avx512Vbmi2, 1 | 2 | 4, _) => unsafe {
            avx2::runs(ready, streams, origin, runs);
        },
        _ => return 0,
    }
    whole
}

/// Decodes all runs at once that are whole, if there is a way to; gives their number, or 0.
#[cfg(not(target_arch = "x86_64"))]
fn whole_runs(_: Level, _: &Ready, _: &mut Streams<'_>, _: i16, _: &[u8], _: &[u8], _: &mut [u8]) -> usize {
    0
}

/// The elements of the base, made those of the segment.
pub(crate) fn elements_of_base<'a>(element: Element, against: &Against<'a>, converted: &'a mut Vec<u8>) -> &'a [u8] {
    if against.delta.element == element {
        return against.base;
    }
    converted.clear();
    convert::convert(against.delta.element, element, against.base, converted);
    converted
}
