//! Sparse chunks: where one value (mostly zero) is most frequent, a mask tells its elements from the others, which are
//! stored as a chunk of their own.
//!
//! Pruned weights, above all. A multiplication with a mask of zeros leaves their signs behind, so zeros may have signs.

mod expand;

use super::block::{Buffers, Coder, Scratch};
use super::plan::ReadyPlan;
use super::plane::{self, PlanePlan};
use super::{Codec, Place};
use crate::error::{Error, Result};
use crate::split::Element;
use crate::wire::{Put, Reader};
use expand::{PADDING, Parts, expand};

/// Set where the elements that are left out differ in their signs.
const SIGNS: u8 = 1;

/// Elements that are left out of a segment's chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filler {
    /// As the number that their bytes are.
    value: u64,
    /// Bytes of an element.
    size: usize,
    /// Bits that may differ: none, or the sign.
    free: u64,
}

impl Filler {
    pub(super) fn new(element: Element, value: u64, signs: bool) -> Filler {
        let size = element.size();
        Filler { value, size, free: if signs { 1 << (8 * size - 1) } else { 0 } }
    }

    /// Takes `bytes` apart into a mask of a bit for each element, the kept elements, and the signs of the others.
    pub(super) fn take_out(self, bytes: &[u8], parts: &mut Taken) {
        parts.mask.clear();
        parts.signs.clear();
        parts.others = 0;
        parts.kept.resize(bytes.len(), 0);
        let kept = match self.size {
            1 => self.take_out_of::<1>(bytes, parts),
            2 => self.take_out_of::<2>(bytes, parts),
            4 => self.take_out_of::<4>(bytes, parts),
            _ => self.take_out_of::<8>(bytes, parts),
        };
        parts.kept.truncate(kept * self.size);
    }

    fn take_out_of<const SIZE: usize>(self, bytes: &[u8], parts: &mut Taken) -> usize {
        let Taken { mask, kept, signs, others } = parts;
        let (room, mut next) = (kept.as_chunks_mut::<SIZE>().0, 0);
        let sign = 8 * SIZE - 1;
        for group in bytes.as_chunks::<SIZE>().0.chunks(8) {
            let mut bits = 0;
            for (at, element) in group.iter().enumerate() {
                let mut value = [0; 8];
                value[..SIZE].copy_from_slice(element);
                let difference = u64::from_le_bytes(value) ^ self.value;
                let keep = difference & !self.free != 0;
                bits |= u8::from(keep) << at;
                room[next] = *element;
                next += usize::from(keep);
                if self.free != 0 && !keep {
                    if *others % 8 == 0 {
                        signs.push(0);
                    }
                    *signs.last_mut().expect("one was just made, or the last is not full") |=
                        ((difference >> sign) as u8) << (*others % 8);
                    *others += 1;
                }
            }
            mask.push(bits);
        }
        next
    }
}

/// A chunk taken apart.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(super) mask: Vec<u8>,
    pub(super) kept: Vec<u8>,
    signs: Vec<u8>,
    /// How many signs there are.
    others: usize,
}

impl Taken {
    /// The bits that the signs take.
    pub(super) fn signs_bits(&self) -> f64 {
        self.others as f64
    }
}

/// How the chunks of a segment are stored: `T` is a [`Table`], or a [`Coder`] once it is ready; `P` is what there is for
/// the kept elements.
#[derive(Clone, Debug)]
pub(crate) struct SparsePlan<T, P> {
    pub(super) filler: Filler,
    pub(super) mask: PlanePlan<T>,
    pub(super) kept: P,
}

impl SparsePlan<Coder, ReadyPlan> {
    /// Appends `bytes`, whole elements, to `stored`.
    pub(super) fn encode(&self, element: Element, bytes: &[u8], buffers: &mut Buffers, stored: &mut Vec<u8>) {
        let mut taken = std::mem::take(&mut buffers.taken);
        self.filler.take_out(bytes, &mut taken);
        stored.push(if self.filler.free == 0 { 0 } else { SIGNS });
        stored.extend_from_slice(&self.filler.value.to_le_bytes()[..self.filler.size]);
        stored.put_varint((taken.kept.len() / self.filler.size) as u64);
        self.mask.encode(&taken.mask, buffers, stored);
        stored.extend_from_slice(&taken.signs);
        let mut kept = Vec::new();
        let codec = super::encode(&self.kept, element, 0, &taken.kept, buffers, &mut kept);
        stored.push(codec.code());
        stored.extend_from_slice(&kept);
        buffers.taken = taken;
    }
}

/// What decoding works in.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    mask: Vec<u8>,
    kept: Vec<u8>,
    signs: Vec<u8>,
}

/// Decodes a chunk, which `out` is long enough for.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it is not one that an encoder writes.
pub(super) fn decode(reader: &mut Reader<'_>, place: Place<'_>, out: &mut [u8], scratch: &mut Scratch) -> Result<()> {
    let mut buffer = std::mem::take(&mut scratch.sparse);
    let decoded = decode_with(reader, place, out, scratch, &mut buffer);
    scratch.sparse = buffer;
    decoded
}

fn decode_with(
    reader: &mut Reader<'_>,
    place: Place<'_>,
    out: &mut [u8],
    scratch: &mut Scratch,
    Buffer { mask, kept, signs }: &mut Buffer,
) -> Result<()> {
    let size = place.element.size();
    let elements = out.len() / size;
    let has_signs = match reader.u8()? {
        0 => false,
        SIGNS if place.element.float_split().is_some() => true,
        flags => return Err(Error::corrupt(format!("a sparse chunk has unknown flags {flags:#x}"))),
    };
    let mut filler = [0; 8];
    filler[..size].copy_from_slice(reader.take(size)?);
    let count = reader.varint_up_to(elements as u64)? as usize;
    mask.resize(elements.div_ceil(8), 0);
    plane::decode(reader, place.tables, mask, scratch)?;
    let set: usize = mask.iter().map(|bits| bits.count_ones() as usize).sum();
    let beyond = mask.last().is_some_and(|&last| u16::from(last) >> ((elements - 1) % 8 + 1) != 0);
    if set != count || beyond {
        return Err(Error::corrupt(format!("the mask of a sparse chunk keeps {set} elements, not {count}")));
    }
    signs.clear();
    if has_signs {
        signs.extend_from_slice(reader.take((elements - count).div_ceil(8))?);
        signs.resize(signs.len() + PADDING, 0);
    }
    let codec = Codec::from_code(reader.u8()?)?;
    if matches!(codec, Codec::Sparse | Codec::Scaled | Codec::Delta | Codec::Unchanged) {
        return Err(Error::corrupt(format!("codec {} is inside a sparse chunk", codec.name())));
    }
    kept.resize(count * size + PADDING, 0);
    super::decode(codec, place, reader.take(reader.remaining())?, &mut kept[..count * size], scratch)?;
    let signs = has_signs.then_some(&signs[..]);
    expand(Parts { mask, kept, filler: u64::from_le_bytes(filler), signs }, size, scratch.level(), out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chunk of ten BF16 elements of which the mask keeps the first and the last, stored in these parts.
    fn stored(flags: u8, filler: &[u8], count: u8, mask: &[u8], signs: &[u8], codec: u8, kept: &[u8]) -> Vec<u8> {
        [&[flags], filler, &[count], mask, signs, &[codec], kept].concat()
    }

    fn decoded(stored: &[u8], element: Element) -> Result<Vec<u8>> {
        let mut out = vec![0; 20];
        let place = Place { element, tables: &[], scale: None, first: 0, against: None };
        super::super::decode(Codec::Sparse, place, stored, &mut out, &mut Scratch::default())?;
        Ok(out)
    }

    #[test]
    fn the_parts_are_put_together() {
        // Mode 0 of a plane: as it is.
        let sound = stored(SIGNS, &[0, 0], 2, &[0, 0b1, 0b10], &[0b0000_0101], 0, &[1, 2, 3, 4]);
        let out = decoded(&sound, Element::Bf16).unwrap();
        assert_eq!(out[..8], [1, 2, 0, 0x80, 0, 0, 0, 0x80]);
        assert_eq!(out[8..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4]);
        let filled = stored(0, &[7, 8], 2, &[0, 0b1, 0b10], &[], 0, &[1, 2, 3, 4]);
        assert_eq!(decoded(&filled, Element::Bytes(2)).unwrap()[..6], [1, 2, 7, 8, 7, 8]);
    }

    #[test]
    fn forged_chunks_are_refused() {
        let (mask, kept) = ([0, 0b1, 0b10], [1, 2, 3, 4]);
        let refused = |stored: Vec<u8>| assert!(decoded(&stored, Element::Bytes(2)).is_err(), "{stored:?}");
        refused(stored(2, &[0, 0], 2, &mask, &[], 0, &kept));
        refused(stored(SIGNS, &[0, 0], 2, &mask, &[0], 0, &kept));
        refused(stored(0, &[0, 0], 3, &mask, &[], 0, &[1, 2, 3, 4, 5, 6]));
        refused(stored(0, &[0, 0], 11, &[0, 0xff, 0xff], &[], 0, &[0; 22]));
        refused(stored(0, &[0, 0], 2, &[0, 0b1, 0b100], &[], 0, &kept));
        refused(stored(0, &[0, 0], 2, &mask, &[], 0, &[1, 2, 3]));
        refused(stored(0, &[0, 0], 2, &mask, &[], 0, &[1, 2, 3, 4, 5]));
        for inside in [Codec::Sparse, Codec::Scaled, Codec::Delta, Codec::Unchanged] {
            refused(stored(0, &[0, 0], 2, &mask, &[], inside.code(), &kept));
        }
        refused(stored(0, &[0, 0], 2, &mask, &[], 63, &kept));
        let sound = stored(SIGNS, &[0, 0], 2, &mask, &[0], 0, &kept);
        for len in 0..sound.len() {
            assert!(decoded(&sound[..len], Element::Bf16).is_err(), "{len}");
        }
    }
}
