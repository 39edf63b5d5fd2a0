//! An original from front to back, decoded on all threads, in bounded memory.

use std::ops::Range;

use rayon::prelude::*;

use crate::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::original::{ChunkIndex, Original};

/// Bytes of the original that are decoded together (or one chunk, if that is longer). Two windows are in memory, few enough
/// bytes to be in the cache still when they are consumed.
const WINDOW: u64 = 4 << 20;

/// Chunks of a window at most: forged containers may have chunks of a byte each.
const WINDOW_CHUNKS: usize = 16 << 10;

/// A chunk that could not be decoded.
#[derive(Debug)]
pub(crate) struct LostChunk {
    pub(crate) chunk: ChunkIndex,
    pub(crate) error: Error,
}

/// Some chunks in a row, decoded.
pub(crate) struct Window<'a> {
    /// Where they lie in the original.
    pub(crate) range: Range<u64>,
    /// Their bytes; those of lost chunks are zero.
    pub(crate) bytes: &'a [u8],
    /// In order.
    pub(crate) lost: Vec<LostChunk>,
}

/// What is done with each window.
pub(crate) type Consume<'a> = &'a mut (dyn FnMut(Window<'_>) -> Result<()> + Send);

/// An original that is decoded from front to back.
pub(crate) trait Windows {
    /// Decodes it and gives it to `consume` window by window, in order. While one window is consumed, the next is decoded. A chunk
    /// that cannot be decoded does not end it.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`], and those of `consume`.
    fn windows(&self, progress: &dyn Progress, consume: Consume<'_>) -> Result<()>;
}

/// Any original, decoded by the processor.
impl Windows for &dyn Original {
    fn windows(&self, progress: &dyn Progress, consume: Consume<'_>) -> Result<()> {
        windows(*self, progress, consume)
    }
}

/// A window while it is filled.
#[derive(Default)]
struct Filled {
    range: Range<u64>,
    bytes: Vec<u8>,
    lost: Vec<LostChunk>,
}

/// [`Windows::windows`] of any original.
pub(crate) fn windows(original: &dyn Original, progress: &dyn Progress, consume: Consume<'_>) -> Result<()> {
    let mut groups = groups(original, 0..original.grid().chunks(), WINDOW);
    let (mut current, mut next) = (Filled::default(), Filled::default());
    let mut more = decode(original, groups.next(), progress, &mut current)?;
    while more {
        let following = groups.next();
        let (decoded, consumed) = rayon::join(
            || decode(original, following, progress, &mut next),
            || {
                let lost = std::mem::take(&mut current.lost);
                consume(Window { range: current.range.clone(), bytes: &current.bytes, lost })
            },
        );
        consumed?;
        more = decoded?;
        std::mem::swap(&mut current, &mut next);
    }
    Ok(())
}

/// These chunks of `original` in groups of about `bytes` bytes.
pub(crate) fn groups(
    original: &dyn Original,
    chunks: Range<u64>,
    bytes: u64,
) -> impl Iterator<Item = Range<u64>> + Send {
    let grid = original.grid();
    let mut first = chunks.start;
    std::iter::from_fn(move || {
        if first >= chunks.end {
            return None;
        }
        let start = grid.range(ChunkIndex(first)).start;
        let fits = |number: u64| grid.range(ChunkIndex(number)).end - start <= bytes;
        let most = chunks.end.min(first + WINDOW_CHUNKS as u64);
        let end = (first + 1..most).find(|&number| !fits(number)).unwrap_or(most);
        Some(std::mem::replace(&mut first, end)..end)
    })
}

/// Decodes the chunks `group` into `window`; `false` when there is no group.
fn decode(
    original: &dyn Original,
    group: Option<Range<u64>>,
    progress: &dyn Progress,
    window: &mut Filled,
) -> Result<bool> {
    let Some(group) = group else { return Ok(false) };
    let range_of = |number| original.grid().range(ChunkIndex(number));
    window.range = range_of(group.start).start..range_of(group.end - 1).end;
    window.bytes.resize((window.range.end - window.range.start) as usize, 0);
    let mut parts = Vec::with_capacity((group.end - group.start) as usize);
    let mut rest = window.bytes.as_mut_slice();
    for number in group {
        let range = range_of(number);
        let (part, behind) = rest.split_at_mut((range.end - range.start) as usize);
        parts.push((ChunkIndex(number), part));
        rest = behind;
    }
    let lost = parts.into_par_iter().filter_map(|(chunk, part)| {
        if progress.cancelled() {
            return Some(Err(cancelled()));
        }
        let result = original.decode_chunk(chunk, part);
        progress.advance(part.len() as u64);
        let error = result.err()?;
        // Whatever a failed decode left behind is not the original's.
        part.fill(0);
        Some(Ok(LostChunk { chunk, error }))
    });
    window.lost = lost.collect::<Result<_>>()?;
    Ok(true)
}

/// The error of an operation that its caller cancelled.
pub(crate) fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "cancelled")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::original::Grid;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Byte i of the original is i mod 251; chunks in `broken` cannot be decoded.
    pub(crate) struct Pattern {
        grid: Grid,
        broken: Vec<u64>,
    }

    impl Pattern {
        pub(crate) fn new(segments: &[(u64, u32)], broken: &[u64]) -> Pattern {
            let mut grid = Grid::new();
            segments.iter().for_each(|&(len, chunk_size)| grid.push(len, chunk_size).unwrap());
            Pattern { grid, broken: broken.to_vec() }
        }

        pub(crate) fn bytes(range: Range<u64>) -> Vec<u8> {
            range.map(|i| (i % 251) as u8).collect()
        }
    }

    impl Original for Pattern {
        fn grid(&self) -> &Grid {
            &self.grid
        }

        fn decode_chunk(&self, chunk: ChunkIndex, out: &mut [u8]) -> Result<()> {
            out.fill(0xee);
            if self.broken.contains(&chunk.0) {
                return Err(Error::corrupt("broken"));
            }
            out.copy_from_slice(&Pattern::bytes(self.grid.range(chunk)));
            Ok(())
        }
    }

    /// Counts bytes and cancels when a limit is reached.
    pub(crate) struct Limit {
        pub(crate) done: AtomicU64,
        pub(crate) most: u64,
    }

    impl Limit {
        pub(crate) fn new(most: u64) -> Limit {
            Limit { done: AtomicU64::new(0), most }
        }
    }

    impl Progress for Limit {
        fn advance(&self, bytes: u64) {
            self.done.fetch_add(bytes, Ordering::Relaxed);
        }

        fn cancelled(&self) -> bool {
            self.done.load(Ordering::Relaxed) >= self.most
        }
    }

    #[test]
    fn windows_come_in_order_and_are_bounded() {
        let original = Pattern::new(&[(10, 3), (3 * WINDOW, 256 << 10), (40_000, 1), (1000, 8 << 20)], &[1, 20, 100]);
        let progress = Limit::new(u64::MAX);
        let (mut end, mut lost) = (0, Vec::new());
        windows(&original, &progress, &mut |window| {
            assert_eq!(window.range.start, end);
            end = window.range.end;
            let mut expected = Pattern::bytes(window.range.clone());
            for chunk in &window.lost {
                let range = original.grid.range(chunk.chunk);
                expected[(range.start - window.range.start) as usize..(range.end - window.range.start) as usize]
                    .fill(0);
                lost.push(chunk.chunk.0);
            }
            assert!(window.bytes == expected && expected.len() as u64 <= WINDOW);
            Ok(())
        })
        .unwrap();
        assert_eq!(end, original.len());
        assert_eq!(lost, [1, 20, 100]);
        assert_eq!(progress.done.into_inner(), original.len());
    }

    #[test]
    fn nothing_comes_of_an_empty_original() {
        windows(&Pattern::new(&[], &[]), &(), &mut |_| panic!("no window")).unwrap();
    }

    #[test]
    fn an_error_of_the_consumer_and_a_cancellation_end_it() {
        let original = Pattern::new(&[(3 * WINDOW, 1 << 20)], &[]);
        let error = windows(&original, &(), &mut |_| Err(Error::invalid("enough"))).unwrap_err();
        assert_eq!(error.to_string(), "enough");
        let mut seen = 0;
        let mut count = |window: Window<'_>| {
            seen += window.bytes.len() as u64;
            Ok(())
        };
        let error = windows(&original, &Limit::new(WINDOW + 1), &mut count).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(seen <= 2 * WINDOW);
    }
}
