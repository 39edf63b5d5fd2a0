//! Byte planes to elements.

/// Makes elements of `size` bytes (1, 2, 4 or 8) of as many planes, which lie one behind the other in `planes`.
pub(super) fn interleave(planes: &[u8], size: usize, out: &mut [u8]) {
    match size {
        1 => out.copy_from_slice(planes),
        2 => interleave_of::<2>(planes, out),
        4 => interleave_of::<4>(planes, out),
        _ => interleave_of::<8>(planes, out),
    }
}

fn interleave_of<const SIZE: usize>(planes: &[u8], out: &mut [u8]) {
    let elements = out.as_chunks_mut::<SIZE>().0;
    let planes: [&[u8]; SIZE] = std::array::from_fn(|plane| &planes[plane * elements.len()..][..elements.len()]);
    for (at, element) in elements.iter_mut().enumerate() {
        *element = std::array::from_fn(|plane| planes[plane][at]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_become_elements() {
        for size in [1, 2, 4, 8] {
            for count in [0, 1, 7, 100] {
                let planes: Vec<u8> = (0..size * count).map(|at| at as u8).collect();
                let mut out = vec![0; planes.len()];
                interleave(&planes, size, &mut out);
                for (element, bytes) in out.chunks(size).enumerate() {
                    assert!(bytes.iter().enumerate().all(|(plane, &byte)| byte == planes[plane * count + element]));
                }
            }
        }
    }
}
