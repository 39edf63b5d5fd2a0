use super::*;
use crate::layout::tests::{is_opaque, layout};
use crate::layout::{Content, Layout};
use crate::original::Memory;
use crate::quantised::BlockType;
use crate::split::Element;
use proptest::prelude::*;

/// A GGUF file under construction.
struct File {
    version: u32,
    entries: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    alignment: usize,
    data: usize,
}

fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&string(key.as_bytes())[..], &kind.to_le_bytes(), value].concat()
}

/// An array of so many items.
fn array(kind: u32, count: u64, items: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &count.to_le_bytes(), items].concat()
}

fn tensor(name: &str, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let dims_bytes: Vec<u8> = dims.iter().flat_map(|dim| dim.to_le_bytes()).collect();
    let count = (dims.len() as u32).to_le_bytes();
    [&string(name.as_bytes())[..], &count, &dims_bytes, &kind.to_le_bytes(), &offset.to_le_bytes()].concat()
}

impl File {
    fn new(tensors: Vec<Vec<u8>>, data: usize) -> File {
        File { version: 3, entries: Vec::new(), tensors, alignment: 32, data }
    }

    fn bytes(&self) -> Vec<u8> {
        let counts = [self.tensors.len() as u64, self.entries.len() as u64].map(u64::to_le_bytes);
        let mut file = [&MAGIC[..], &self.version.to_le_bytes(), counts.as_flattened()].concat();
        file.extend(self.entries.concat());
        file.extend(self.tensors.concat());
        file.resize(file.len().next_multiple_of(self.alignment), 0);
        file.extend((0..self.data).map(|i| (i * 31 % 251) as u8));
        file
    }
}

/// Metadata of every kind, the alignment among them.
fn entries() -> Vec<Vec<u8>> {
    let words = [string(b"a"), string(b"token"), string(b"")].concat();
    let nested = [array(4, 2, &[1; 8]), array(8, 1, &string(b"x"))].concat();
    vec![
        entry("general.name", 8, &string(b"test")),
        entry("general.alignment", 4, &64u32.to_le_bytes()),
        entry("byte", 0, &[1]),
        entry("half", 2, &[1; 2]),
        entry("float", 6, &[1; 4]),
        entry("bool", 7, &[1]),
        entry("double", 12, &[1; 8]),
        entry("tokens", 9, &array(8, 3, &words)),
        entry("scores", 9, &array(6, 1000, &[3; 4000])),
        entry("nested", 9, &array(9, 2, &nested)),
    ]
}

#[test]
fn tensors_gaps_and_padding_are_segments() {
    let tensors = vec![
        tensor("b", &[200, 100], 0, 80_064),
        tensor("a", &[400, 100], 30, 0),
        tensor("q", &[256, 300], 12, 160_128),
        tensor("scalar", &[], 27, 203_392),
        tensor("new", &[7], 77, 203_456),
    ];
    for version in [2, 3] {
        let file = File { version, entries: entries(), alignment: 64, ..File::new(tensors.clone(), 203_500) };
        let layout = layout(&file.bytes());
        let names: Vec<_> = layout.tensors.iter().map(|t| (t.name.as_str(), t.dtype.as_str(), &t.shape[..])).collect();
        let expected: [(&str, &str, &[u64]); 4] =
            [("a", "BF16", &[100, 400]), ("b", "F32", &[100, 200]), ("q", "Q4_K", &[300, 256]), ("scalar", "I64", &[])];
        assert_eq!(names, expected);
        use Content::*;
        let contents: Vec<_> = layout.segments.iter().map(|s| (s.content, s.element)).collect();
        assert_eq!(
            contents,
            [
                (Header, Element::Bytes(1)),
                (Tensor, Element::Bf16),
                (Opaque, Element::Bytes(1)),
                (Tensor, Element::F32),
                (Opaque, Element::Bytes(1)),
                (Tensor, Element::Blocks(BlockType::Q4_K)),
                (Opaque, Element::Bytes(1)),
                (TinyTensors, Element::Bytes(8)),
                (Opaque, Element::Bytes(1)),
            ]
        );
    }
}

#[test]
fn a_file_without_tensors_is_a_header() {
    let mut file = File { entries: entries(), alignment: 1, ..File::new(Vec::new(), 0) }.bytes();
    assert_eq!(layout(&file).segments.len(), 1);
    assert!(!is_opaque(&file));
    file.extend([0; 1000]);
    assert_eq!(layout(&file).segments.len(), 2);
}

#[test]
fn a_header_longer_than_a_piece_is_read() {
    let words: Vec<u8> = (0..60_000).flat_map(|i| string(format!("word {i}").as_bytes())).collect();
    let vocabulary = entry("tokens", 9, &array(8, 60_000, &words));
    let scores = entry("scores", 9, &array(6, 300_000, &vec![1; 1_200_000]));
    let tensors: Vec<_> = (0..9000).map(|i| tensor(&format!("blk.{i}.weight"), &[1], 0, 32 * i)).collect();
    let file = File { entries: vec![vocabulary, scores], ..File::new(tensors, 9000 * 32) };
    assert_eq!(layout(&file.bytes()).tensors.len(), 9000);
}

#[test]
fn what_cannot_be_relied_on_is_opaque() {
    let one = |tensor: Vec<u8>| File::new(vec![tensor], 72).bytes();
    let with = |entry: Vec<u8>| File { entries: vec![entry], ..File::new(vec![tensor("a", &[2], 0, 0)], 72) }.bytes();
    let sound = one(tensor("a", &[2], 0, 0));
    assert!(!is_opaque(&sound) && !is_opaque(&with(entry("k", 0, &[1]))));
    assert!(!is_opaque(&one(tensor("a", &[64], 8, 4))), "two blocks, not aligned");
    assert!(is_opaque(&one(tensor("a", &[33], 8, 0))), "a row that is no whole blocks");
    assert!(is_opaque(&one(tensor("a", &[2], 0, 65))), "reaches beyond the file");
    assert!(is_opaque(&one(tensor("a", &[1 << 32, 1 << 32], 0, 0))), "a shape that overflows");
    assert!(is_opaque(&one(tensor("a", &[1 << 62], 0, 0))), "bytes that overflow");
    assert!(is_opaque(&one(tensor("a", &[1], 0, u64::MAX))), "an offset that overflows");
    assert!(is_opaque(&one(tensor("a", &[1; 9], 0, 0))), "nine dimensions");
    assert!(is_opaque(&one(tensor(&"a".repeat(5000), &[1], 0, 0))), "a name of 5000 bytes");
    let overlap = vec![tensor("a", &[4], 24, 0), tensor("b", &[4], 24, 3)];
    assert!(is_opaque(&File::new(overlap, 8).bytes()));
    assert!(is_opaque(&with(entry("k", 13, &[1]))), "an unknown kind of value");
    assert!(is_opaque(&with(entry("k", 9, &array(13, 1, &[1])))), "an array of those");
    assert!(is_opaque(&with(entry("k", 9, &array(0, u64::MAX, &[])))), "an array as long as can be");
    assert!(is_opaque(&with(entry("k", 9, &array(8, 1 << 40, &[])))));
    assert!(is_opaque(&with(entry("k", 8, &u64::MAX.to_le_bytes()))), "a string as long as can be");
    assert!(is_opaque(&with(entry("general.alignment", 4, &[0; 4]))), "no alignment");
    let deep = (0..9).fold(array(0, 1, &[1]), |inner, _| array(9, 1, &inner));
    assert!(is_opaque(&with(entry("k", 9, &deep))), "arrays in arrays");
    for version in [0, 1, 4, 3u32.swap_bytes()] {
        assert!(is_opaque(&File { version, ..File::new(Vec::new(), 0) }.bytes()));
    }
    for len in 0..sound.len() - 64 {
        assert!(is_opaque(&sound[..len]), "{len}");
    }
}

/// A file that cannot be read beyond its first bytes.
#[derive(Debug)]
struct Broken(Memory);

impl Original for Broken {
    fn grid(&self) -> &crate::Grid {
        self.0.grid()
    }

    fn decode_chunk(&self, index: crate::ChunkIndex, out: &mut [u8]) -> Result<()> {
        self.0.decode_chunk(index, out)
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> Result<()> {
        Err(Error::io("cannot be read", std::io::ErrorKind::Other.into()))
    }
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let file = File::new(Vec::new(), 0).bytes();
    assert!(Layout::of(&Broken(Memory::new(file))).is_err());
}

proptest! {
    #[test]
    fn any_bytes_have_a_layout(bytes: Vec<u8>) {
        layout(&bytes);
        layout(&[&MAGIC[..], &[3, 0, 0, 0], &bytes].concat());
    }

    #[test]
    fn damaged_headers_have_a_layout(at: prop::sample::Index, bytes: [u8; 8], cut: prop::sample::Index) {
        let tensors = vec![tensor("a", &[400, 100], 30, 0), tensor("q", &[256, 30], 14, 80_000)];
        let mut file = File { entries: entries(), alignment: 64, ..File::new(tensors, 90_000) }.bytes();
        let header = file.len() - 90_000;
        let at = at.index(header - bytes.len());
        file[at..at + bytes.len()].copy_from_slice(&bytes);
        layout(&file);
        file.truncate(cut.index(file.len()));
        layout(&file);
    }
}
