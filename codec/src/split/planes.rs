//! Raw bits as planes that vectors of 32 elements can take apart without moving anything across lanes.
//!
//! The `r` raw bits of an element are cut into fields of 16, 8, 4, 2 and 1 bits, those of the binary representation of
//! `r`, the widest at the bottom. All fields of one width are a *plane*. A plane of width `w` is a sequence of vectors
//! of 32 lanes of 16 bits: vector `v` holds the fields of groups `v * (16 / w)` to `(v + 1) * (16 / w) - 1`, lane `l`
//! those of the groups' `l`-th elements, the first group in its lowest bits. Planes follow one another, the widest
//! first.

use super::Split;
use crate::rans::LANES;
use crate::simd::Level;

/// Bytes of a vector of 32 lanes of 16 bits.
pub(crate) const VECTOR_BYTES: usize = LANES * 2;

/// The most fields that raw bits have.
pub(crate) const MAX_FIELDS: usize = 5;

/// A plane of a certain width.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    /// Bits of the field: 16, 8, 4, 2 or 1.
    pub(crate) width: usize,
    /// The position of its lowest bit in the raw bits.
    pub(crate) at: usize,
}

impl Field {
    /// Groups that share a vector.
    pub(crate) fn groups(self) -> usize {
        16 / self.width
    }

    /// Bytes of the plane for so many groups.
    pub(crate) fn bytes(self, groups: usize) -> usize {
        groups.div_ceil(self.groups()) * VECTOR_BYTES
    }

    fn mask(self) -> u16 {
        u16::MAX >> (16 - self.width)
    }
}

/// The fields of `raw_bits` (at most 31) raw bits, the widest first.
pub(crate) fn fields(raw_bits: u8) -> impl Iterator<Item = Field> {
    let raw_bits = usize::from(raw_bits);
    [16, 8, 4, 2, 1].into_iter().filter(move |width| raw_bits & width != 0).scan(0, |at, width| {
        let field = Field { width, at: *at };
        *at += width;
        Some(field)
    })
}

/// Bytes of the planes of `groups` groups with `raw_bits` raw bits an element.
pub(crate) fn planes_len(groups: usize, raw_bits: u8) -> usize {
    fields(raw_bits).map(|field| field.bytes(groups)).sum()
}

/// Groups that are taken apart together: the fewest whose fields fill whole vectors, whatever their width.
pub(crate) const BLOCK_GROUPS: usize = 16;

/// The lanes of a group or a vector, four in each word, the first in its lowest bits: words are shifted and masked in
/// fewer steps than lanes, and in vectors as well.
type Words = [u64; WORDS];

/// Words of 32 lanes of 16 bits.
const WORDS: usize = VECTOR_BYTES / size_of::<u64>();

/// Writes the planes of the raw bits of `bytes`, which are whole elements cut by `split`, to `out`, which is as long.
pub(crate) fn write_planes(bytes: &[u8], split: Split, level: Level, out: &mut [u8]) {
    assert_eq!(out.len(), planes_len((bytes.len() / usize::from(split.width / 8)).div_ceil(LANES), split.raw_bits()));
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level is only given where the processor has what it stands for.
        Level::Avx2 => unsafe { write_planes_avx2(bytes, split, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx512 | Level::Avx512Vbmi2 => unsafe { write_planes_avx512(bytes, split, out) },
        _ => write_planes_anyhow(bytes, split, out),
    }
}

/// [`write_planes_anyhow`], compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn write_planes_avx2(bytes: &[u8], split: Split, out: &mut [u8]) {
    write_planes_anyhow(bytes, split, out);
}

/// [`write_planes_anyhow`], compiled for AVX-512.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn write_planes_avx512(bytes: &[u8], split: Split, out: &mut [u8]) {
    write_planes_anyhow(bytes, split, out);
}

/// The definition, of which a compiler makes whatever vectors it may use.
#[inline(always)]
fn write_planes_anyhow(bytes: &[u8], split: Split, out: &mut [u8]) {
    match split.width {
        8 => write_planes_of::<1>(bytes, split, out),
        16 => write_planes_of::<2>(bytes, split, out),
        32 => write_planes_of::<4>(bytes, split, out),
        width => unreachable!("elements of {width} bits are not split"),
    }
}

/// The same for elements of `SIZE` bytes.
#[inline(always)]
fn write_planes_of<const SIZE: usize>(bytes: &[u8], split: Split, out: &mut [u8]) {
    let bits = RawBits::of(split);
    let groups = (bytes.len() / SIZE).div_ceil(LANES);
    // Each field with where its plane begins.
    let planes: Vec<(Field, usize)> = fields(split.raw_bits())
        .scan(0, |begin, field| Some((field, std::mem::replace(begin, *begin + field.bytes(groups)))))
        .collect();
    // The lower and the upper 16 raw bits of a block of groups.
    let (mut low, mut high) = ([[0; WORDS]; BLOCK_GROUPS], [[0; WORDS]; BLOCK_GROUPS]);
    for (block, bytes) in bytes.chunks(BLOCK_GROUPS * LANES * SIZE).enumerate() {
        if bytes.len() < BLOCK_GROUPS * LANES * SIZE {
            // What the block before left must not fill this one up.
            (low, high) = ([[0; WORDS]; BLOCK_GROUPS], [[0; WORDS]; BLOCK_GROUPS]);
        }
        for ((group, low), high) in bytes.chunks(LANES * SIZE).zip(&mut low).zip(&mut high) {
            if group.len() == LANES * SIZE {
                bits.of_group::<SIZE>(group, low, high);
            } else {
                let mut whole = [0; LANES * size_of::<u32>()];
                whole[..group.len()].copy_from_slice(group);
                bits.of_group::<SIZE>(&whole[..LANES * SIZE], low, high);
            }
        }
        for &(field, plane) in &planes {
            let halves = if field.at < 16 { &low } else { &high };
            let vectors = BLOCK_GROUPS / field.groups();
            let begin = plane + block * vectors * VECTOR_BYTES;
            let end = (begin + vectors * VECTOR_BYTES).min(plane + field.bytes(groups));
            pack(field, halves, &mut out[begin..end]);
        }
    }
}

/// Writes a field of a block of groups to the block's vectors of its plane; of the last block only as many as there are.
#[inline(always)]
fn pack(field: Field, halves: &[Words; BLOCK_GROUPS], vectors: &mut [u8]) {
    let (at, mask) = ((field.at % 16) as u32, lanes(field.mask()));
    for (groups, vector) in halves.chunks_exact(field.groups()).zip(vectors.as_chunks_mut::<VECTOR_BYTES>().0) {
        let mut packed: Words = [0; WORDS];
        for group in groups.iter().rev() {
            for (packed, word) in packed.iter_mut().zip(group) {
                *packed = packed.wrapping_shl(field.width as u32) | (word.wrapping_shr(at) & mask);
            }
        }
        for (bytes, packed) in vector.as_chunks_mut().0.iter_mut().zip(packed) {
            *bytes = packed.to_le_bytes();
        }
    }
}

/// Adds the raw bits in `planes`, those of all groups of `out`, to elements cut by `split` that lack them: the undoing of
/// [`write_planes`]. Low bits are added to magnitudes, modulo the number of magnitudes; signs must not be there yet.
pub(crate) fn add_planes(planes: &[u8], split: Split, level: Level, out: &mut [u8]) {
    assert_eq!(planes.len(), planes_len(out.len().div_ceil(LANES * split.size()), split.raw_bits()));
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level is only given where the processor has what it stands for.
        Level::Avx2 => unsafe { add_planes_avx2(planes, split, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx512 | Level::Avx512Vbmi2 => unsafe { add_planes_avx512(planes, split, out) },
        _ => add_planes_anyhow(planes, split, out),
    }
}

/// [`add_planes_anyhow`], compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn add_planes_avx2(planes: &[u8], split: Split, out: &mut [u8]) {
    add_planes_anyhow(planes, split, out);
}

/// [`add_planes_anyhow`], compiled for AVX-512.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn add_planes_avx512(planes: &[u8], split: Split, out: &mut [u8]) {
    add_planes_anyhow(planes, split, out);
}

/// The definition, of which a compiler makes whatever vectors it may use.
#[inline(always)]
fn add_planes_anyhow(planes: &[u8], split: Split, out: &mut [u8]) {
    match split.width {
        8 => add_planes_to::<1>(planes, split, out),
        16 => add_planes_to::<2>(planes, split, out),
        32 => add_planes_to::<4>(planes, split, out),
        width => unreachable!("elements of {width} bits are not split"),
    }
}

/// The same for elements of `SIZE` bytes.
#[inline(always)]
fn add_planes_to<const SIZE: usize>(planes: &[u8], split: Split, out: &mut [u8]) {
    let bits = RawBits::of(split);
    let groups = out.len().div_ceil(LANES * SIZE);
    let fields: Vec<(Field, usize)> = fields(split.raw_bits())
        .scan(0, |begin, field| Some((field, std::mem::replace(begin, *begin + field.bytes(groups)))))
        .collect();
    for (block, out) in out.chunks_mut(BLOCK_GROUPS * LANES * SIZE).enumerate() {
        let (mut low, mut high) = ([[0; WORDS]; BLOCK_GROUPS], [[0; WORDS]; BLOCK_GROUPS]);
        for &(field, plane) in &fields {
            let halves = if field.at < 16 { &mut low } else { &mut high };
            let vectors = BLOCK_GROUPS / field.groups();
            let begin = plane + block * vectors * VECTOR_BYTES;
            let end = (begin + vectors * VECTOR_BYTES).min(plane + field.bytes(groups));
            unpack(field, &planes[begin..end], halves);
        }
        for ((group, low), high) in out.chunks_mut(LANES * SIZE).zip(&low).zip(&high) {
            if group.len() == LANES * SIZE {
                bits.add_to_group::<SIZE>(group, low, high);
            } else {
                let mut whole = [0; LANES * size_of::<u32>()];
                whole[..group.len()].copy_from_slice(group);
                bits.add_to_group::<SIZE>(&mut whole[..LANES * SIZE], low, high);
                group.copy_from_slice(&whole[..group.len()]);
            }
        }
    }
}

/// Puts a field of a block of groups where it belongs in their raw bits: what [`pack`] undoes.
#[inline(always)]
fn unpack(field: Field, vectors: &[u8], halves: &mut [Words; BLOCK_GROUPS]) {
    let (at, mask) = ((field.at % 16) as u32, lanes(field.mask()));
    for (groups, vector) in halves.chunks_exact_mut(field.groups()).zip(vectors.as_chunks::<VECTOR_BYTES>().0) {
        for (number, group) in groups.iter_mut().enumerate() {
            let shift = (number * field.width) as u32;
            for (word, packed) in group.iter_mut().zip(vector.as_chunks().0) {
                *word |= (u64::from_le_bytes(*packed).wrapping_shr(shift) & mask).wrapping_shl(at);
            }
        }
    }
}

/// A word with `lane` in each of its lanes.
fn lanes(lane: u16) -> u64 {
    u64::from(lane) * 0x0001_0001_0001_0001
}

/// [`Split::raw`] as two shifts and two masks. The masks also remove what the shifts bring over from the next lane.
#[derive(Clone, Copy, Debug)]
struct RawBits {
    low_shift: u32,
    low_mask: u32,
    sign_shift: u32,
    sign_mask: u32,
    /// The bits of a magnitude.
    magnitude: u32,
}

impl RawBits {
    fn of(split: Split) -> RawBits {
        let stored = u32::from(split.shift - split.zeros);
        RawBits {
            low_shift: u32::from(split.zeros),
            low_mask: (1 << stored) - 1,
            sign_shift: u32::from(split.width) - 1 - stored,
            sign_mask: u32::from(split.signed) << stored,
            magnitude: u32::MAX >> (32 - split.magnitude_bits()),
        }
    }

    /// The raw bits of all elements in a word, which lie in its lanes as `masks` do.
    #[inline(always)]
    fn of_word(self, word: u64, masks: [u64; 2]) -> u64 {
        (word.wrapping_shr(self.low_shift) & masks[0]) | (word.wrapping_shr(self.sign_shift) & masks[1])
    }

    /// The lower and the upper 16 raw bits of the elements of a group; there are upper ones only of elements of 32 bits.
    #[inline(always)]
    fn of_group<const SIZE: usize>(self, group: &[u8], low: &mut Words, high: &mut Words) {
        match SIZE {
            1 => {
                let masks = [self.low_mask, self.sign_mask].map(|mask| lanes(mask as u16));
                for (four, low) in group.as_chunks().0.iter().zip(low) {
                    let four = u64::from(u32::from_le_bytes(*four));
                    let two_and_two = (four | four << 16) & 0x0000_ffff_0000_ffff;
                    let lanes = (two_and_two | two_and_two << 8) & 0x00ff_00ff_00ff_00ff;
                    *low = self.of_word(lanes, masks);
                }
            }
            2 => {
                let masks = [self.low_mask, self.sign_mask].map(|mask| lanes(mask as u16));
                for (four, low) in group.as_chunks().0.iter().zip(low) {
                    *low = self.of_word(u64::from_le_bytes(*four), masks);
                }
            }
            _ => {
                let masks = [self.low_mask, self.sign_mask].map(|mask| u64::from(mask) * 0x0000_0001_0000_0001);
                let quads = group.as_chunks::<8>().0.as_chunks::<2>().0;
                for ((quad, low), high) in quads.iter().zip(low).zip(high) {
                    let [first, second] = quad.map(|two| self.of_word(u64::from_le_bytes(two), masks));
                    *low = lower_halves(first) | lower_halves(second) << 32;
                    *high = lower_halves(first >> 16) | lower_halves(second >> 16) << 32;
                }
            }
        }
    }
}

impl RawBits {
    /// The elements in `word`, which lie in its lanes as `masks` (those of [`low_mask`](RawBits::low_mask),
    /// [`sign_mask`](RawBits::sign_mask) and [`magnitude`](RawBits::magnitude)) do, with these raw bits added.
    ///
    /// No lane overflows into the next: a magnitude has one bit less, or none of the bits that are added.
    #[inline(always)]
    fn add_to_word(self, word: u64, raw: u64, masks: [u64; 3]) -> u64 {
        let magnitudes = word.wrapping_add((raw & masks[0]).wrapping_shl(self.low_shift)) & masks[2];
        magnitudes | (raw & masks[1]).wrapping_shl(self.sign_shift)
    }

    /// The same for a group, given the lower and the upper 16 raw bits of its elements.
    #[inline(always)]
    fn add_to_group<const SIZE: usize>(self, group: &mut [u8], low: &Words, high: &Words) {
        let masks = [self.low_mask, self.sign_mask, self.magnitude];
        match SIZE {
            1 => {
                let masks = masks.map(|mask| lanes(mask as u16));
                for (four, low) in group.as_chunks_mut().0.iter_mut().zip(low) {
                    let bytes = u64::from(u32::from_le_bytes(*four));
                    let two_and_two = (bytes | bytes << 16) & 0x0000_ffff_0000_ffff;
                    let lanes = (two_and_two | two_and_two << 8) & 0x00ff_00ff_00ff_00ff;
                    let lanes = self.add_to_word(lanes, *low, masks);
                    let two_and_two = (lanes | lanes >> 8) & 0x0000_ffff_0000_ffff;
                    *four = ((two_and_two | two_and_two >> 16) as u32).to_le_bytes();
                }
            }
            2 => {
                let masks = masks.map(|mask| lanes(mask as u16));
                for (four, low) in group.as_chunks_mut().0.iter_mut().zip(low) {
                    *four = self.add_to_word(u64::from_le_bytes(*four), *low, masks).to_le_bytes();
                }
            }
            _ => {
                let masks = masks.map(|mask| u64::from(mask) * 0x0000_0001_0000_0001);
                let quads = group.as_chunks_mut::<8>().0.as_chunks_mut::<2>().0;
                for ((quad, low), high) in quads.iter_mut().zip(low).zip(high) {
                    for (at, two) in quad.iter_mut().enumerate() {
                        let raw = spread(low >> (32 * at)) | spread(high >> (32 * at)) << 16;
                        *two = self.add_to_word(u64::from_le_bytes(*two), raw, masks).to_le_bytes();
                    }
                }
            }
        }
    }
}

/// The lower two lanes of 16 bits of `word`, each in the lower half of one of 32.
#[inline(always)]
fn spread(word: u64) -> u64 {
    (word & 0xffff) | (word & 0xffff_0000) << 16
}

/// The lower 16 bits of both halves of `word`, one behind the other.
#[inline(always)]
fn lower_halves(word: u64) -> u64 {
    (word & 0xffff) | (word >> 16 & 0xffff_0000)
}

#[cfg(test)]
mod tests {
    use super::super::tests::splits;
    use super::*;
    use crate::error::Result;
    use crate::wire::Reader;
    use proptest::prelude::*;

    /// The planes of a block, to be read group by group.
    #[derive(Clone, Debug)]
    struct Planes<'a> {
        /// Each field with its plane.
        planes: Vec<(Field, &'a [u8])>,
    }

    impl<'a> Planes<'a> {
        /// Takes the planes of `groups` groups off the front of `reader`.
        fn read(reader: &mut Reader<'a>, groups: usize, raw_bits: u8) -> Result<Planes<'a>> {
            let planes =
                fields(raw_bits).map(|field| Ok((field, reader.take(field.bytes(groups))?))).collect::<Result<_>>()?;
            Ok(Planes { planes })
        }

        /// The raw bits of the elements of a group, which is one of those that [`read`](Planes::read) took.
        fn group(&self, group: usize) -> [u32; LANES] {
            let mut raw = [0; LANES];
            for (field, plane) in &self.planes {
                let vector = &plane[group / field.groups() * VECTOR_BYTES..][..VECTOR_BYTES];
                let shift = group % field.groups() * field.width;
                for (raw, lane) in raw.iter_mut().zip(vector.as_chunks().0) {
                    *raw |= u32::from(u16::from_le_bytes(*lane) >> shift & field.mask()) << field.at;
                }
            }
            raw
        }
    }

    proptest! {
        #[test]
        fn raw_bits_come_back(split in splits(), mut bytes in prop::collection::vec(any::<u8>(), 0..6000)) {
            let size = usize::from(split.width / 8);
            bytes.truncate(bytes.len() / size * size);
            let groups = (bytes.len() / size).div_ceil(LANES);
            for level in Level::available() {
                // Whatever is there already.
                let mut wire = vec![0xaa; planes_len(groups, split.raw_bits())];
                write_planes(&bytes, split, level, &mut wire);
                let mut reader = Reader::new(&wire);
                let planes = Planes::read(&mut reader, groups, split.raw_bits()).unwrap();
                reader.finish().unwrap();
                let mut left = bytes.chunks(size).map(|element| {
                    let mut value = [0; 4];
                    value[..size].copy_from_slice(element);
                    split.raw(u32::from_le_bytes(value))
                });
                for group in 0..groups {
                    for raw in planes.group(group) {
                        // The last group is filled up with zeros.
                        prop_assert_eq!(raw, left.next().unwrap_or(0), "{:?}", level);
                    }
                }
                prop_assert!(left.next().is_none());
                // And added to what the elements are without them.
                let mut out = bytes.clone();
                let magnitude = u32::MAX >> (32 - split.magnitude_bits());
                for element in out.chunks_mut(size) {
                    let mut value = [0; 4];
                    value[..size].copy_from_slice(element);
                    let value = u32::from_le_bytes(value) & magnitude & !((1 << split.shift) - 1);
                    element.copy_from_slice(&value.to_le_bytes()[..size]);
                }
                add_planes(&wire, split, level, &mut out);
                for (element, out) in bytes.chunks(size).zip(out.chunks(size)) {
                    let (mut value, mut had) = ([0; 4], [0; 4]);
                    value[..size].copy_from_slice(out);
                    had[..size].copy_from_slice(element);
                    let zeros = !((1u64 << split.zeros) - 1) as u32;
                    prop_assert_eq!(u32::from_le_bytes(value), u32::from_le_bytes(had) & zeros, "{:?}", level);
                }
            }
        }
    }

    #[test]
    fn six_raw_bits_are_a_nibble_and_a_pair() {
        let mut wire = [0xaa; 128];
        let split = Split { width: 8, signed: false, shift: 6, zeros: 0 };
        write_planes(&[0b10_0001], split, Level::Scalar, &mut wire);
        assert_eq!((wire[0], wire[64]), (0b0001, 0b10));
    }

    #[test]
    fn too_short_is_an_error() {
        assert!(Planes::read(&mut Reader::new(&[0; 63]), 1, 1).is_err());
    }
}
