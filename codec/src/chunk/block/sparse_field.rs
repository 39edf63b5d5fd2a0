//! The sparse field: some low bits that many groups of a block lack, stored for those that have them.
//!
//! F32 tensors often hold rows that were rounded to fewer bits. Where a chunk has rows of both kinds, the low bits that
//! those have not are stored apart: a flag for each group that says whether it has any, and planes for those that do.

use crate::error::{Error, Result};
use crate::rans::LANES;
use crate::simd::Level;
use crate::split::Split;
use crate::split::planes::{BLOCK_GROUPS, Field, add_planes, fields, planes_len, write_planes};

/// Which bits they are, and how many groups have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SparseField {
    /// The position of its lowest bit.
    pub(super) at: u8,
    /// How many bits it has; if none, there is no such field.
    pub(super) width: u8,
    /// Groups of which an element has one of these bits set.
    pub(super) groups: usize,
}

/// Bits that naming a field takes, and rounding up its planes.
const OVERHEAD_BITS: i64 = 1024;

impl SparseField {
    /// The split of an element that has these bits alone.
    fn split(self) -> Split {
        Split { width: 32, signed: false, shift: self.width, zeros: 0 }
    }

    /// Bytes of the flags of a block of so many groups.
    fn flags_len(self, all_groups: usize) -> usize {
        if self.width == 0 { 0 } else { all_groups.div_ceil(8) }
    }

    /// Bytes that it takes in the tail of a block of so many groups.
    pub(super) fn len(self, all_groups: usize) -> usize {
        self.flags_len(all_groups) + planes_len(self.groups, self.width)
    }

    /// The field that saves most of `bytes`, elements of 32 bits cut by `split`, whose `zeros` are those of all of them;
    /// `or_of_group` is memory to work in, and has in the end for each group the bits that any of its elements has.
    pub(super) fn find(bytes: &[u8], split: Split, or_of_group: &mut Vec<u32>) -> SparseField {
        or_of_group.clear();
        or_of_group.extend(
            bytes
                .chunks(LANES * size_of::<u32>())
                .map(|group| group.as_chunks().0.iter().fold(0, |any, element| any | u32::from_le_bytes(*element))),
        );
        // How many groups have so many zero bits, or more.
        let mut with_zeros = [0i64; 33];
        for any in &*or_of_group {
            with_zeros[any.trailing_zeros() as usize] += 1;
        }
        for zeros in (0..32).rev() {
            with_zeros[zeros] += with_zeros[zeros + 1];
        }
        let groups = or_of_group.len() as i64;
        let mut best = (SparseField { at: split.zeros, width: 0, groups: 0 }, 0);
        for zeros in split.zeros + 1..=split.shift {
            let (width, lacking) = (zeros - split.zeros, with_zeros[usize::from(zeros)]);
            let saved = lacking * i64::from(width) * LANES as i64 - groups - OVERHEAD_BITS;
            if saved > best.1 {
                best = (SparseField { width, groups: (groups - lacking) as usize, ..best.0 }, saved);
            }
        }
        best.0
    }

    /// Appends flags and planes to `out`; `or_of_group` is what [`find`](SparseField::find) left.
    pub(super) fn write(self, bytes: &[u8], or_of_group: &[u32], level: Level, out: &mut Vec<u8>) {
        if self.width == 0 {
            return;
        }
        let has_it = |any: u32| any >> self.at & ((1 << self.width) - 1) != 0;
        let flags = or_of_group
            .chunks(8)
            .map(|groups| groups.iter().enumerate().fold(0, |flags, (bit, &any)| flags | u8::from(has_it(any)) << bit));
        out.extend(flags);
        // The elements of those groups, moved to where `split` wants them; the last one may be short.
        let groups = bytes.chunks(LANES * size_of::<u32>()).zip(or_of_group).filter(|&(_, &any)| has_it(any));
        let mut fields = Vec::with_capacity(self.groups * LANES * size_of::<u32>());
        for (group, _) in groups {
            for element in group.as_chunks().0 {
                let field = u32::from_le_bytes(*element) >> self.at & ((1 << self.width) - 1);
                fields.extend_from_slice(&field.to_le_bytes());
            }
            fields.resize(fields.len().next_multiple_of(LANES * size_of::<u32>()), 0);
        }
        let begin = out.len();
        out.resize(begin + planes_len(self.groups, self.width), 0);
        write_planes(&fields, self.split(), level, &mut out[begin..]);
    }

    /// Adds the field to the magnitudes of the elements of `out`, which are cut by `split` and lack it; `stored` is as
    /// long as [`len`](SparseField::len) says.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when there are not as many flags set as there are groups.
    pub(super) fn add(self, stored: &[u8], split: Split, level: Level, out: &mut [u8]) -> Result<()> {
        if self.width == 0 {
            return Ok(());
        }
        let size = split.size();
        let all_groups = out.len().div_ceil(LANES * size);
        let (flags, planes) = stored.split_at(self.flags_len(all_groups));
        let set: usize = flags.iter().map(|flags| flags.count_ones() as usize).sum();
        let beyond = flags.last().is_some_and(|&last| u16::from(last) >> ((all_groups - 1) % 8 + 1) != 0);
        if set != self.groups || beyond {
            return Err(Error::corrupt(format!("{set} groups have low bits of their own, not {}", self.groups)));
        }
        let mut flagged = out
            .chunks_mut(LANES * size)
            .enumerate()
            .filter(|(group, _)| flags[group / 8] >> (group % 8) & 1 == 1)
            .map(|(_, group)| group);
        let planes: Vec<(Field, &[u8])> = fields(self.width)
            .scan(planes, |rest, field| {
                let (plane, further) = rest.split_at(field.bytes(self.groups));
                *rest = further;
                Some((field, plane))
            })
            .collect();
        // As many groups at a time as fill whole vectors of all planes.
        let mut part = Vec::new();
        for begin in (0..self.groups).step_by(BLOCK_GROUPS) {
            let groups = BLOCK_GROUPS.min(self.groups - begin);
            part.clear();
            for (field, plane) in &planes {
                part.extend_from_slice(&plane[field.bytes(begin)..field.bytes(begin + groups)]);
            }
            let mut fields = [0; BLOCK_GROUPS * LANES * size_of::<u32>()];
            let fields = &mut fields[..groups * LANES * size_of::<u32>()];
            add_planes(&part, self.split(), level, fields);
            for (group, fields) in flagged.by_ref().take(groups).zip(fields.as_chunks().0.as_chunks::<LANES>().0) {
                self.add_to_group(group, fields, split);
            }
        }
        Ok(())
    }

    /// Adds the fields of a group to its elements.
    fn add_to_group(self, group: &mut [u8], fields: &[[u8; 4]; LANES], split: Split) {
        if split.width == 32 {
            for (element, field) in group.as_chunks_mut().0.iter_mut().zip(fields) {
                let field = u32::from_le_bytes(*field) << self.at;
                *element = split.add(u32::from_le_bytes(*element), field).to_le_bytes();
            }
        } else {
            for (element, field) in group.chunks_exact_mut(split.size()).zip(fields) {
                let mut value = [0; 4];
                value[..element.len()].copy_from_slice(element);
                let whole = split.add(u32::from_le_bytes(value), u32::from_le_bytes(*field) << self.at);
                element.copy_from_slice(&whole.to_le_bytes()[..element.len()]);
            }
        }
    }
}
