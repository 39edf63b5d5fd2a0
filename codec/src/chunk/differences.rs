//! Integers that go up or down evenly: the difference of each to the one before, with Zstandard.

/// Replaces elements of `size` bytes by their differences, modulo the range of an element; the first is what it was.
pub(super) fn take(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut out = bytes.to_vec();
    match size {
        1 => take_of(&mut out, u8::from_le_bytes, u8::to_le_bytes, u8::wrapping_sub),
        2 => take_of(&mut out, u16::from_le_bytes, u16::to_le_bytes, u16::wrapping_sub),
        4 => take_of(&mut out, u32::from_le_bytes, u32::to_le_bytes, u32::wrapping_sub),
        _ => take_of(&mut out, u64::from_le_bytes, u64::to_le_bytes, u64::wrapping_sub),
    }
    out
}

fn take_of<T: Copy + Default, const SIZE: usize>(
    bytes: &mut [u8],
    from: fn([u8; SIZE]) -> T,
    to: fn(T) -> [u8; SIZE],
    minus: fn(T, T) -> T,
) {
    let mut last = T::default();
    for element in bytes.as_chunks_mut::<SIZE>().0 {
        let this = from(*element);
        *element = to(minus(this, last));
        last = this;
    }
}

/// Undoes [`take`], in place.
pub(super) fn sum(bytes: &mut [u8], size: usize) {
    match size {
        1 => sum_of(bytes, u8::from_le_bytes, u8::to_le_bytes, u8::wrapping_add),
        2 => sum_of(bytes, u16::from_le_bytes, u16::to_le_bytes, u16::wrapping_add),
        4 => sum_of(bytes, u32::from_le_bytes, u32::to_le_bytes, u32::wrapping_add),
        _ => sum_of(bytes, u64::from_le_bytes, u64::to_le_bytes, u64::wrapping_add),
    }
}

fn sum_of<T: Copy + Default, const SIZE: usize>(
    bytes: &mut [u8],
    from: fn([u8; SIZE]) -> T,
    to: fn(T) -> [u8; SIZE],
    plus: fn(T, T) -> T,
) {
    let mut last = T::default();
    for element in bytes.as_chunks_mut::<SIZE>().0 {
        last = plus(last, from(*element));
        *element = to(last);
    }
}
