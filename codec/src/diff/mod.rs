//! How two models differ: which tensors one has and the other has not, and how far the elements of the others are apart.
//!
//! Tensors are matched by their names, and those that were renamed as the [tensors of patches](crate::patch) are. Those whose recorded MD5s are the same are not read. All others are read in pieces, on all threads,
//! wherever they lie, so that memory is bounded by the number of threads and not by the size of a tensor.

mod steps;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use rayon::prelude::*;

use crate::Progress;
use crate::error::Result;
use crate::original::Original;
use crate::patch::partners;
use crate::stream::cancelled;
use steps::Scale;
pub use steps::Steps;

/// Bytes of a tensor that are compared at a time (or one chunk, if that is longer).
const PIECE: u64 = 1 << 20;

/// A tensor of one of the models.
#[derive(Clone)]
pub struct Tensor<'a> {
    /// Its name, which no other of the model has.
    pub name: Cow<'a, str>,
    /// Its dtype as the header of its file spells it.
    pub dtype: &'a str,
    /// Its dimensions.
    pub shape: &'a [u64],
    /// What messages call the file that it lies in.
    pub file: &'a str,
    /// That file.
    pub original: &'a dyn Original,
    /// Where its bytes lie there.
    pub range: Range<u64>,
    /// Their MD5, if it is known.
    pub md5: Option<[u8; 16]>,
}

impl Tensor<'_> {
    /// Its length in bytes.
    pub fn byte_len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Fills `buf` with its bytes from `offset` on. Errors name file and tensor.
    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let read = self.original.read_at(self.range.start + offset, buf);
        read.map_err(|e| match e.io_error() {
            // They name the file already.
            Some(_) => e,
            None => e.context(format_args!("{}: tensor \"{}\"", self.file, self.name)),
        })
    }
}

/// What became of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is the same, byte for byte.
    Same,
    /// Some of its values changed.
    Values(Steps),
    /// It has another dtype, so that its elements cannot be compared.
    Dtype,
    /// It has another shape. Where only the first dimension is another, the elements that both have are compared.
    Shape(Option<Steps>),
    /// Only the second model has it.
    Added,
    /// Only the first model has it.
    Removed,
}

/// A tensor of either model or both, and what became of it.
#[derive(Clone)]
pub struct Compared<'a> {
    /// That of the first model.
    pub before: Option<Tensor<'a>>,
    /// That of the second.
    pub after: Option<Tensor<'a>>,
    /// What became of it.
    pub change: Change,
}

impl<'a> Compared<'a> {
    /// One of the two, the second where there are both.
    pub fn tensor(&self) -> &Tensor<'a> {
        self.after.as_ref().or(self.before.as_ref()).expect("a tensor is in one of them")
    }

    /// What it was called in the first model, if that is something else.
    pub fn renamed_from(&self) -> Option<&str> {
        let (before, after) = (self.before.as_ref()?, self.after.as_ref()?);
        (before.name != after.name).then_some(&*before.name)
    }

    /// Whether it is the same and has the same name.
    pub fn is_same(&self) -> bool {
        self.change == Change::Same && self.renamed_from().is_none()
    }

    /// Whether its elements have steps.
    pub fn is_ordered(&self) -> bool {
        Scale::of(self.tensor().dtype).is_ordered()
    }

    /// How many elements it has; bytes, where those of its dtype cannot be told apart.
    pub fn elements(&self) -> u64 {
        self.tensor().byte_len() / Scale::of(self.tensor().dtype).size() as u64
    }
}

/// The tensors of two models, matched, before they are read.
pub struct Comparison<'a> {
    /// By name. Those whose elements are still to be compared count as the same, or as having no elements in common.
    matched: Vec<Compared<'a>>,
    /// What is to be compared: which of them, and how many bytes from the start of both.
    work: Vec<(usize, u64)>,
}

impl<'a> Comparison<'a> {
    /// Matches the tensors of two models.
    ///
    /// # Errors
    /// Those of reading some values of tensors that only one of them has by name.
    pub fn of(before: &[Tensor<'a>], after: &[Tensor<'a>]) -> Result<Comparison<'a>> {
        let mut both: BTreeMap<&str, (Option<&Tensor<'a>>, Option<&Tensor<'a>>)> = BTreeMap::new();
        let mut partners = partners::find(after, before)?;
        // A tensor was renamed but once, and not if there still is one of its name.
        let mut is_taken = vec![false; before.len()];
        for same_name in [true, false] {
            for (after, partner) in after.iter().zip(&mut partners) {
                let Some(number) = *partner else { continue };
                if (before[number].name == after.name) == same_name && std::mem::replace(&mut is_taken[number], true) {
                    *partner = None;
                }
            }
        }
        for (after, partner) in after.iter().zip(partners) {
            both.insert(&after.name, (partner.map(|number| &before[number]), Some(after)));
        }
        for (before, _) in before.iter().zip(is_taken).filter(|(_, is_taken)| !is_taken) {
            both.insert(&before.name, (Some(before), None));
        }
        let mut comparison = Comparison { matched: Vec::with_capacity(both.len()), work: Vec::new() };
        for (number, (before, after)) in both.into_values().enumerate() {
            let (change, bytes) = match (before, after) {
                (Some(before), Some(after)) => matched(before, after),
                (None, _) => (Change::Added, 0),
                (_, None) => (Change::Removed, 0),
            };
            comparison.matched.push(Compared { before: before.cloned(), after: after.cloned(), change });
            if bytes > 0 {
                comparison.work.push((number, bytes));
            }
        }
        Ok(comparison)
    }

    /// How many bytes of each model are to be read: the progress that [`run`](Comparison::run) makes.
    pub fn bytes(&self) -> u64 {
        self.work.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Reads what has to be read, on the threads of the current rayon pool, and says what became of each tensor, by name.
    ///
    /// # Errors
    /// Those of reading either model, with the name of the tensor, and [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    pub fn run(self, progress: &dyn Progress) -> Result<Vec<Compared<'a>>> {
        let Comparison { mut matched, work } = self;
        let pieces: Vec<(usize, Range<u64>)> = work
            .iter()
            .flat_map(|&(number, bytes)| {
                let piece = piece_len(&matched[number]);
                (0..bytes).step_by(piece as usize).map(move |start| (number, start..bytes.min(start + piece)))
            })
            .collect();
        let steps = pieces.par_iter().map_init(Default::default, |(a, b): &mut (Vec<u8>, Vec<u8>), (number, range)| {
            if progress.cancelled() {
                return Err(cancelled());
            }
            let steps = compare_piece(&matched[*number], range, a, b)?;
            progress.advance(range.end - range.start);
            Ok(steps)
        });
        let steps: Vec<Steps> = steps.collect::<Result<_>>()?;
        let mut sums = BTreeMap::<usize, Steps>::new();
        for ((number, _), steps) in pieces.iter().zip(&steps) {
            sums.entry(*number).or_default().add(steps);
        }
        for (number, steps) in sums {
            let change = &mut matched[number].change;
            *change = match *change {
                Change::Shape(_) => Change::Shape(Some(steps)),
                _ if steps.changed > 0 => Change::Values(steps),
                same => same,
            };
        }
        Ok(matched)
    }
}

/// What can be said of two tensors that are one another's without reading them, and how many bytes of them are to be compared.
fn matched(before: &Tensor<'_>, after: &Tensor<'_>) -> (Change, u64) {
    let whole = |bytes: u64| bytes - bytes % Scale::of(after.dtype).size() as u64;
    if before.dtype != after.dtype {
        return (Change::Dtype, 0);
    }
    if before.shape != after.shape || before.byte_len() != after.byte_len() {
        let rows_alike = before.shape.len() == after.shape.len() && before.shape.get(1..) == after.shape.get(1..);
        let common = if rows_alike { whole(before.byte_len().min(after.byte_len())) } else { 0 };
        return (Change::Shape((common > 0).then(Steps::default)), common);
    }
    match (before.md5, after.md5) {
        (Some(before), Some(after)) if before == after => (Change::Same, 0),
        _ => (Change::Same, whole(after.byte_len())),
    }
}

/// How many bytes of a pair are compared at a time: whole chunks, so that none is decoded twice, where tensors begin with chunks.
fn piece_len(pair: &Compared<'_>) -> u64 {
    let longest =
        |tensor: &Option<Tensor<'_>>| tensor.as_ref().map_or(0, |tensor| tensor.original.grid().longest_chunk());
    PIECE.next_multiple_of(u64::from(longest(&pair.before).max(longest(&pair.after))).max(1)).next_multiple_of(8)
}

fn compare_piece(pair: &Compared<'_>, range: &Range<u64>, a: &mut Vec<u8>, b: &mut Vec<u8>) -> Result<Steps> {
    for (tensor, bytes) in [(&pair.before, &mut *a), (&pair.after, &mut *b)] {
        let tensor = tensor.as_ref().expect("only what both have is compared");
        bytes.resize((range.end - range.start) as usize, 0);
        tensor.read_at(range.start, bytes)?;
    }
    Ok(Scale::of(pair.tensor().dtype).compare(a, b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::original::{ChunkIndex, Grid, Memory};

    fn tensor<'a>(name: &'a str, dtype: &'a str, shape: &'a [u64], original: &'a dyn Original) -> Tensor<'a> {
        Tensor { name: name.into(), dtype, shape, file: "file", original, range: 0..original.len(), md5: None }
    }

    fn changes(before: &[Tensor<'_>], after: &[Tensor<'_>]) -> Vec<(String, Change)> {
        let compared = Comparison::of(before, after).unwrap().run(&()).unwrap();
        compared.iter().map(|compared| (compared.tensor().name.clone().into_owned(), compared.change)).collect()
    }

    #[test]
    fn every_kind_of_change_is_told() {
        let one = Memory::new(vec![1; 8]);
        let two = Memory::new(vec![1, 1, 1, 1, 1, 3, 1, 1]);
        let more = Memory::new(vec![1; 12]);
        let before = [
            tensor("dtype", "I16", &[4], &one),
            tensor("gone", "I8", &[8], &one),
            tensor("rows", "U8", &[4, 2], &one),
            tensor("same", "U8", &[8], &one),
            tensor("shape", "U8", &[2, 4], &one),
            tensor("values", "U16", &[4], &one),
        ];
        let after = [
            tensor("dtype", "U16", &[4], &one),
            tensor("new", "I8", &[8], &one),
            tensor("rows", "U8", &[6, 2], &more),
            tensor("same", "U8", &[8], &one),
            tensor("shape", "U8", &[4, 2], &one),
            tensor("values", "U16", &[4], &two),
        ];
        let steps = |elements, changed, sum, max| Steps { elements, changed, sum, max };
        let expected = [
            ("dtype", Change::Dtype),
            ("gone", Change::Removed),
            ("new", Change::Added),
            ("rows", Change::Shape(Some(steps(8, 0, 0, 0)))),
            ("same", Change::Same),
            ("shape", Change::Shape(None)),
            ("values", Change::Values(steps(4, 1, 512, 512))),
        ];
        assert_eq!(changes(&before, &after), expected.map(|(name, change)| (name.to_owned(), change)));
    }

    #[test]
    fn a_tensor_that_was_renamed_is_told_once() {
        let values = Memory::new((0..64u32).flat_map(|at| (at as f32).sin().to_le_bytes()).collect());
        let bytes = Memory::new(vec![1; 8]);
        let floats = |name| tensor(name, "F32", &[64], &values);
        let before = [tensor("model.a.w", "U8", &[8], &bytes), floats("b"), floats("c")];
        // Three with the same values: one has the name, and one can be the other.
        let after = [tensor("a.w", "U8", &[8], &bytes), floats("b"), floats("x"), floats("y")];
        let compared = Comparison::of(&before, &after).unwrap().run(&()).unwrap();
        let told: Vec<_> = compared
            .iter()
            .map(|compared| (&*compared.tensor().name, compared.renamed_from(), compared.change, compared.is_same()))
            .collect();
        let expected = [
            ("a.w", Some("model.a.w"), Change::Same, false),
            ("b", None, Change::Same, true),
            ("x", Some("c"), Change::Same, false),
            ("y", None, Change::Added, false),
        ];
        assert_eq!(told, expected);
    }

    /// An original that must not be read.
    struct Sealed(Grid);

    impl Original for Sealed {
        fn grid(&self) -> &Grid {
            &self.0
        }

        fn decode_chunk(&self, _: ChunkIndex, _: &mut [u8]) -> Result<()> {
            panic!("it was read");
        }
    }

    #[test]
    fn what_is_known_to_be_the_same_is_not_read() {
        let sealed = Sealed(Grid::uniform(1 << 40, 256 << 10).unwrap());
        let known = |md5| Tensor { md5: Some([md5; 16]), ..tensor("a", "F32", &[1 << 38], &sealed) };
        let comparison = Comparison::of(&[known(1)], &[known(1)]).unwrap();
        assert_eq!(comparison.bytes(), 0);
        assert_eq!(comparison.run(&()).unwrap()[0].change, Change::Same);
        assert_eq!(Comparison::of(&[known(1)], &[known(2)]).unwrap().bytes(), 1 << 40);
    }

    #[test]
    fn long_tensors_are_compared_in_pieces_to_their_last_byte() {
        let long = vec![0; (3 * PIECE + 6) as usize];
        let mut other = long.clone();
        for at in [0, PIECE as usize, long.len() - 1] {
            other[at] = 1;
        }
        let (long, other) = (Memory::new(long), Memory::new(other));
        let shape = [long.len()];
        let changed = changes(&[tensor("a", "U8", &shape, &long)], &[tensor("a", "U8", &shape, &other)]);
        let steps = Steps { elements: long.len(), changed: 3, sum: 3, max: 1 };
        assert_eq!(changed, [("a".to_owned(), Change::Values(steps))]);
    }
}
