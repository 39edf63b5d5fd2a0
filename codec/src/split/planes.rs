//! Raw bits as planes that vectors of 32 elements can take apart without moving anything across lanes.
//!
//! The `r` raw bits of an element are cut into fields of 16, 8, 4, 2 and 1 bits, those of the binary representation of
//! `r`, the widest at the bottom. All fields of one width are a *plane*. A plane of width `w` is a sequence of vectors
//! of 32 lanes of 16 bits: vector `v` holds the fields of groups `v * (16 / w)` to `(v + 1) * (16 / w) - 1`, lane `l`
//! those of the groups' `l`-th elements, the first group in its lowest bits. Planes follow one another, the widest
//! first.

use crate::error::Result;
use crate::rans::LANES;
use crate::wire::Reader;

/// Bytes of a vector of 32 lanes of 16 bits.
const VECTOR_BYTES: usize = LANES * 2;

/// A plane of a certain width.
#[derive(Clone, Copy, Debug)]
struct Field {
    /// Bits of the field: 16, 8, 4, 2 or 1.
    width: usize,
    /// The position of its lowest bit in the raw bits.
    at: usize,
}

impl Field {
    /// Groups that share a vector.
    fn groups(self) -> usize {
        16 / self.width
    }

    /// Bytes of the plane for so many groups.
    fn bytes(self, groups: usize) -> usize {
        groups.div_ceil(self.groups()) * VECTOR_BYTES
    }

    fn mask(self) -> u16 {
        u16::MAX >> (16 - self.width)
    }
}

/// The fields of `raw_bits` (at most 31) raw bits, the widest first.
fn fields(raw_bits: u8) -> impl Iterator<Item = Field> {
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

/// Appends the planes of `raw`, one value of `raw_bits` bits for each element.
pub(crate) fn write_planes(raw: impl Iterator<Item = u32> + Clone, elements: usize, raw_bits: u8, out: &mut Vec<u8>) {
    let groups = elements.div_ceil(LANES);
    for field in fields(raw_bits) {
        let mut vectors = vec![[0u16; LANES]; groups.div_ceil(field.groups())];
        for (index, value) in raw.clone().enumerate() {
            let (group, lane) = (index / LANES, index % LANES);
            let bits = (value >> field.at) as u16 & field.mask();
            vectors[group / field.groups()][lane] |= bits << (group % field.groups() * field.width);
        }
        out.extend(vectors.as_flattened().iter().flat_map(|lane| lane.to_le_bytes()));
    }
}

/// The planes of a block, to be read group by group.
#[derive(Clone, Debug)]
pub(crate) struct Planes<'a> {
    /// Each field with its plane.
    planes: Vec<(Field, &'a [u8])>,
}

impl<'a> Planes<'a> {
    /// Takes the planes of `groups` groups off the front of `reader`.
    pub(crate) fn read(reader: &mut Reader<'a>, groups: usize, raw_bits: u8) -> Result<Planes<'a>> {
        let planes =
            fields(raw_bits).map(|field| Ok((field, reader.take(field.bytes(groups))?))).collect::<Result<_>>()?;
        Ok(Planes { planes })
    }

    /// The raw bits of the elements of a group, which is one of those that [`read`](Planes::read) took.
    pub(crate) fn group(&self, group: usize) -> [u32; LANES] {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn raw_bits_come_back(raw_bits in 0..=31u8, values in prop::collection::vec(any::<u32>(), 0..2000)) {
            let values: Vec<u32> = values.into_iter().map(|v| v & ((1u64 << raw_bits) - 1) as u32).collect();
            let groups = values.len().div_ceil(LANES);
            let mut wire = Vec::new();
            write_planes(values.iter().copied(), values.len(), raw_bits, &mut wire);
            prop_assert_eq!(wire.len(), planes_len(groups, raw_bits));
            let mut reader = Reader::new(&wire);
            let planes = Planes::read(&mut reader, groups, raw_bits).unwrap();
            reader.finish().unwrap();
            for (group, values) in values.chunks(LANES).enumerate() {
                prop_assert_eq!(&planes.group(group)[..values.len()], values);
            }
        }
    }

    #[test]
    fn six_raw_bits_are_a_nibble_and_a_pair() {
        let mut wire = Vec::new();
        write_planes([0b10_0001u32].into_iter(), 1, 6, &mut wire);
        assert_eq!(wire.len(), 128);
        assert_eq!((wire[0], wire[64]), (0b0001, 0b10));
    }

    #[test]
    fn too_short_is_an_error() {
        assert!(Planes::read(&mut Reader::new(&[0; 63]), 1, 1).is_err());
    }
}
