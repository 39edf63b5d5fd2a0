//! GGUF files to test with.

/// So many blocks of `size` bytes: noise with fewer bits set than not, and next to the same in the bytes where most types have a
/// scale.
pub fn blocks(size: usize, count: usize, mut noise: impl FnMut() -> u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..count * size).map(|_| (noise() & noise() >> 8) as u8).collect();
    for block in bytes.chunks_exact_mut(size) {
        block[1] = 0x2c;
        block[size - 1] &= 0x21;
    }
    bytes
}

/// A file of version 3 with these tensors: type, and number of elements, and bytes.
pub fn file(tensors: &[(u32, u64, Vec<u8>)]) -> Vec<u8> {
    const ALIGNMENT: usize = 32;
    let mut header = b"GGUF\x03\0\0\0".to_vec();
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend(0u64.to_le_bytes());
    let mut data: Vec<u8> = Vec::new();
    for (number, (kind, elements, bytes)) in tensors.iter().enumerate() {
        let name = format!("blk.{number}.weight");
        header.extend((name.len() as u64).to_le_bytes());
        header.extend(name.as_bytes());
        header.extend(1u32.to_le_bytes());
        header.extend(elements.to_le_bytes());
        header.extend(kind.to_le_bytes());
        header.extend((data.len() as u64).to_le_bytes());
        data.extend(bytes);
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
    [header, data].concat()
}
