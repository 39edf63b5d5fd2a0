//! The MD5 of each tensor, taken as the bytes of the original go by.

use std::ops::Range;

use md5::{Digest, Md5};
use rayon::prelude::*;

/// Takes the MD5 of ranges of bytes that do not overlap while all bytes go by from front to back.
#[derive(Debug)]
pub(crate) struct TensorHashes {
    /// By position.
    ranges: Vec<Range<u64>>,
    /// The hashes of the first ranges.
    done: Vec<[u8; 16]>,
    /// The state of the next one, if some of its bytes went by already.
    open: Option<Md5>,
}

impl TensorHashes {
    /// Begins with nothing taken. `ranges` are sorted and do not overlap.
    pub(crate) fn new(ranges: Vec<Range<u64>>) -> TensorHashes {
        TensorHashes { ranges, done: Vec::new(), open: None }
    }

    /// Takes the bytes of `window`, which follow those that were taken before; different ranges on different threads.
    pub(crate) fn add(&mut self, window: &Range<u64>, bytes: &[u8]) {
        let rest = &self.ranges[self.done.len()..];
        let touched = &rest[..rest.partition_point(|range| range.start < window.end)];
        let open = self.open.take();
        let hash = |(number, range): (usize, &Range<u64>)| {
            let mut hash = if number == 0 { open.clone() } else { None }.unwrap_or_default();
            let (start, end) = (range.start.max(window.start), range.end.min(window.end));
            if start < end {
                hash.update(&bytes[(start - window.start) as usize..(end - window.start) as usize]);
            }
            hash
        };
        let mut hashes: Vec<Md5> = touched.par_iter().enumerate().map(hash).collect();
        if touched.last().is_some_and(|range| range.end > window.end) {
            self.open = hashes.pop();
        }
        self.done.extend(hashes.into_iter().map(|hash| <[u8; 16]>::from(hash.finalize())));
    }

    /// The hashes, in the order of the ranges, once all bytes went by.
    pub(crate) fn finish(mut self) -> Vec<[u8; 16]> {
        // Those left are empty and lie at the very end.
        self.done.resize(self.ranges.len(), Md5::digest([]).into());
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_do_not_depend_on_the_windows() {
        let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7 % 253) as u8).collect();
        let ranges = vec![0..0, 3..3, 3..10, 10..600, 600..600, 601..999, 1000..1000];
        let expected: Vec<[u8; 16]> =
            ranges.iter().map(|range| Md5::digest(&bytes[range.start as usize..range.end as usize]).into()).collect();
        for step in [1, 7, 10, 599, 1000] {
            let mut hashes = TensorHashes::new(ranges.clone());
            for start in (0..1000).step_by(step) {
                let end = (start + step).min(1000);
                hashes.add(&(start as u64..end as u64), &bytes[start..end]);
            }
            assert_eq!(hashes.finish(), expected, "windows of {step}");
        }
        let empty: [u8; 16] = Md5::digest([]).into();
        assert_eq!(TensorHashes::new(vec![0..0, 0..0]).finish(), [empty, empty], "an empty original");
    }
}
