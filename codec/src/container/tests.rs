//! Containers as wholes: round trips, random access, determinism, and what damage does.

use proptest::prelude::*;

use super::*;
use crate::checksum::checksum;
use crate::chunk;
use crate::chunk::tests::scaled_weights;
use crate::error::ErrorKind;
use crate::original::{ChunkIndex, Memory, Original};
use crate::safetensors::tests::file;
use crate::split::Element;

fn container_of(original: &[u8], options: &Options) -> Vec<u8> {
    let mut out = Vec::new();
    let summary = compress(&Memory::new(original.to_vec()), "model.safetensors", options, &mut out, &()).unwrap();
    assert_eq!(summary.original_len, original.len() as u64);
    assert_eq!(summary.stored_len, out.len() as u64);
    out
}

fn open(container: Vec<u8>) -> crate::Result<Container> {
    Container::from_store(Box::new(Memory::new(container)))
}

fn contents(original: &dyn Original) -> crate::Result<Vec<u8>> {
    let mut bytes = vec![0xaa; original.len() as usize];
    original.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// A safetensors file with one tensor of each dtype and shape given, its bytes made by `fill`.
fn model(tensors: &[(&str, usize, Vec<usize>)], fill: impl Fn(usize) -> u8) -> Vec<u8> {
    let mut header = String::from("{\"__metadata__\":{\"format\":\"pt\"}");
    let mut end = 0;
    for (number, (dtype, size, shape)) in tensors.iter().enumerate() {
        let len = shape.iter().product::<usize>() * size;
        header += &format!(
            ",\"t{number}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{end},{}]}}",
            end + len
        );
        end += len;
    }
    header.push('}');
    let mut file = file(&header, 0);
    file.extend((0..end).map(fill));
    file
}

/// Something like weights in BF16: signs and mantissas of noise, few exponents.
fn weight_byte(position: usize) -> u8 {
    let hash =
        (position as u64 / 2).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let noise = (hash >> 40) as u16;
    let exponent = 120 - (noise.trailing_zeros() as u16).min(12);
    let word = (noise & 0x807f) | exponent << 7;
    word.to_le_bytes()[position % 2]
}

fn dtypes() -> impl Strategy<Value = (&'static str, usize)> {
    prop::sample::select(vec![
        ("BF16", 2),
        ("F16", 2),
        ("F32", 4),
        ("F64", 8),
        ("F8_E4M3", 1),
        ("F8_E5M2", 1),
        ("I8", 1),
        ("U8", 1),
        ("BOOL", 1),
        ("I16", 2),
        ("U16", 2),
        ("I32", 4),
        ("U32", 4),
        ("I64", 8),
        ("U64", 8),
        ("C64", 8),
        ("F8_E8M0", 1),
        ("SOMETHING_NEW", 3),
    ])
}

fn models() -> impl Strategy<Value = Vec<u8>> {
    let shapes = prop::collection::vec(0..60usize, 0..3);
    let fills = prop_oneof![Just(0u8), Just(1), Just(2), Just(3)];
    (prop::collection::vec((dtypes(), shapes), 0..6), fills, any::<u64>()).prop_map(|(tensors, fill, seed)| {
        let tensors: Vec<_> = tensors.into_iter().map(|((dtype, size), shape)| (dtype, size, shape)).collect();
        model(&tensors, |i| match fill {
            0 => 0,
            1 => weight_byte(i),
            2 => (i % 7) as u8,
            _ => ((i as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8,
        })
    })
}

fn originals() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        models(),
        prop::collection::vec(any::<u8>(), 0..3000),
        // A model with something wrong at its end.
        (models(), any::<Vec<u8>>(), any::<prop::sample::Index>()).prop_map(|(mut model, tail, cut)| {
            model.truncate(cut.index(model.len()));
            model.extend(tail);
            model
        }),
    ]
}

fn options() -> impl Strategy<Value = Options> {
    let modes = prop::sample::select(vec![Mode::Storage, Mode::Balanced, Mode::Inference]);
    (modes, 8..600u32).prop_map(|(mode, eights)| Options { mode, chunk_size: eights * 8 })
}

proptest! {
    #[test]
    fn any_original_comes_back(original in originals(), options in options()) {
        let container = open(container_of(&original, &options)).unwrap();
        prop_assert_eq!(contents(&container).unwrap(), original);
    }

    #[test]
    fn any_range_can_be_read(original in originals(), options in options(), ranges in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..20)) {
        let container = open(container_of(&original, &options)).unwrap();
        for (a, b) in ranges {
            let (a, b) = (a.index(original.len() + 1), b.index(original.len() + 1));
            let (start, end) = (a.min(b), a.max(b));
            let mut bytes = vec![0; end - start];
            container.read_at(start as u64, &mut bytes).unwrap();
            prop_assert_eq!(&bytes[..], &original[start..end]);
        }
        prop_assert!(container.read_at(original.len() as u64, &mut [0]).is_err());
    }

    #[test]
    fn a_flipped_bit_is_an_error(original in originals(), options in options(), at: prop::sample::Index, bit in 0..8u32) {
        let mut container = container_of(&original, &options);
        let at = at.index(container.len());
        container[at] ^= 1u8 << bit;
        // Every byte of a container is covered by some check.
        let read = open(container).and_then(|container| contents(&container));
        prop_assert!(read.is_err(), "byte {} may change unnoticed", at);
    }

    #[test]
    fn a_truncated_container_is_an_error(original in originals(), at: prop::sample::Index) {
        let mut container = container_of(&original, &Options::default());
        container.truncate(at.index(container.len()));
        prop_assert!(open(container).is_err());
    }

    #[test]
    fn forged_bytes_with_good_checksums_are_safe(original in originals(), options in options(), section in 0..6usize, forgery in forgery()) {
        let forged = forge(&container_of(&original, &options), section, &forgery);
        if let Ok(container) = open(forged) {
            // A forger may claim any length; who reads asks for as much as they have room for.
            for chunk in (0..container.grid().chunks()).take(1000).map(ChunkIndex) {
                let range = container.grid().range(chunk);
                let mut out = vec![0; (range.end - range.start) as usize];
                let _ = container.decode_chunk(chunk, &mut out);
            }
        }
    }

    #[test]
    fn any_bytes_can_be_opened_safely(bytes: Vec<u8>) {
        let mut container = frame::preamble(VERSION);
        container.extend(bytes);
        prop_assert!(open(container).is_err());
    }
}

/// What a forger does to some bytes: replace some, cut, append.
#[derive(Clone, Debug)]
enum Forgery {
    Set(prop::sample::Index, u8),
    Truncate(prop::sample::Index),
    Append(Vec<u8>),
}

fn forgery() -> impl Strategy<Value = Vec<Forgery>> {
    let one = prop_oneof![
        8 => (any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0), Just(255), Just(128)]).prop_map(|(at, byte)| Forgery::Set(at, byte)),
        1 => any::<prop::sample::Index>().prop_map(Forgery::Truncate),
        1 => prop::collection::vec(any::<u8>(), 1..30).prop_map(Forgery::Append),
    ];
    prop::collection::vec(one, 1..5)
}

/// The container with one section (the sixth: its first chunk) forged and all checksums made good.
fn forge(container: &[u8], section: usize, forgery: &[Forgery]) -> Vec<u8> {
    let mut frame = frame::read(&Memory::new(container.to_vec())).unwrap();
    let mut data = container[frame::PREAMBLE_LEN as usize..frame.data_end as usize].to_vec();
    let first_chunk =
        frame.sections.chunks.first_chunk().map_or(0, |entry| u32::from_le_bytes(*entry) as usize % (1 << 26));
    let mut chunk = data[..first_chunk].to_vec();
    let target = match section {
        0 => &mut frame.sections.original,
        1 => &mut frame.sections.segments,
        2 => &mut frame.sections.tensors,
        3 => &mut frame.sections.tables,
        4 => &mut frame.sections.chunks,
        _ => &mut chunk,
    };
    for step in forgery {
        match step {
            Forgery::Set(at, byte) if !target.is_empty() => {
                let at = at.index(target.len());
                target[at] = *byte;
            }
            Forgery::Set(..) => {}
            Forgery::Truncate(at) => target.truncate(at.index(target.len() + 1)),
            Forgery::Append(bytes) => target.extend(bytes),
        }
    }
    if section == 5 && first_chunk > 0 {
        let codec = u32::from_le_bytes(*frame.sections.chunks.first_chunk().unwrap()) & !((1 << 26) - 1);
        frame.sections.chunks[..4].copy_from_slice(&(chunk.len() as u32 | codec).to_le_bytes());
        frame.sections.chunks[4..12].copy_from_slice(&crate::checksum::checksum(&chunk).to_le_bytes());
        data.splice(..first_chunk, chunk);
    }
    let mut forged = frame::preamble(frame.version);
    forged.extend(data);
    let data_end = forged.len() as u64;
    forged.extend(frame::tail(frame.version, &frame.sections, data_end));
    forged
}

/// A model whose only tensor is normalised.
fn normalised_model() -> Vec<u8> {
    let weights = scaled_weights(Element::Bf16, 96, 128, 11);
    model(&[("BF16", 2, vec![96, 128])], |at| weights[at])
}

#[test]
fn a_forged_normalisation_is_safe() {
    let original = normalised_model();
    let options = Options { chunk_size: 8192, ..Options::default() };
    let container = container_of(&original, &options);
    assert!(open(container.clone()).unwrap().codec_usage().iter().any(|usage| usage.codec == chunk::Codec::Scaled));
    let segments = frame::read(&Memory::new(container.clone())).unwrap().sections.segments.len();
    let mut decoded = 0;
    for at in 0..segments {
        for byte in [0, 1, 2, 3, 4, 5, 7, 8, 127, 128, 129, 130, 132, 255] {
            let mut forged = frame::read(&Memory::new(container.clone())).unwrap();
            forged.sections.segments[at] = byte;
            let mut bytes = container[..forged.data_end as usize].to_vec();
            bytes.extend(frame::tail(forged.version, &forged.sections, forged.data_end));
            if let Ok(container) = open(bytes) {
                for chunk in (0..container.grid().chunks()).take(100).map(ChunkIndex) {
                    let range = container.grid().range(chunk);
                    let mut out = vec![0; (range.end - range.start) as usize];
                    decoded += usize::from(container.decode_chunk(chunk, &mut out).is_ok());
                }
            }
        }
    }
    // Many forgeries are another normalisation that is as good.
    assert!(decoded > 100, "{decoded}");
}

#[test]
fn every_flipped_bit_of_a_small_container_is_an_error() {
    let original = model(&[("BF16", 2, vec![40, 60]), ("I64", 8, vec![3]), ("F32", 4, vec![500])], weight_byte);
    let container = container_of(&original, &Options { chunk_size: 1024, ..Options::default() });
    assert!(container.len() < original.len());
    for at in 0..container.len() {
        for bit in 0..8 {
            let mut damaged = container.clone();
            damaged[at] ^= 1u8 << bit;
            let read = open(damaged).and_then(|container| contents(&container));
            assert!(read.is_err(), "bit {bit} of byte {at} may change unnoticed");
        }
    }
    for len in 0..container.len() {
        assert!(open(container[..len].to_vec()).is_err(), "cut to {len} bytes");
    }
}

#[test]
fn damage_is_confined_to_its_chunk() {
    let original = model(&[("BF16", 2, vec![100, 100])], weight_byte);
    let mut bytes = container_of(&original, &Options { chunk_size: 4096, ..Options::default() });
    let (broken, at) = {
        let container = open(bytes.clone()).unwrap();
        let broken = ChunkIndex(container.grid().chunks() / 2);
        let before: u32 = (0..broken.0).map(|n| container.chunk_storage(ChunkIndex(n)).1).sum();
        (broken, frame::PREAMBLE_LEN as usize + before as usize)
    };
    bytes[at] ^= 0x10;
    let container = open(bytes).unwrap();
    for number in 0..container.grid().chunks() {
        let range = container.grid().range(ChunkIndex(number));
        let mut out = vec![0; (range.end - range.start) as usize];
        let read = container.read_at(range.start, &mut out);
        if ChunkIndex(number) == broken {
            assert_eq!(read.unwrap_err().kind(), ErrorKind::Corrupt);
        } else {
            read.unwrap();
            assert_eq!(out, original[range.start as usize..range.end as usize]);
        }
    }
}

#[test]
fn the_number_of_threads_does_not_show() {
    let tensors: Vec<_> = (0..40).map(|i| ("BF16", 2, vec![i * 37 + 1, 200])).collect();
    let original = model(&tensors, weight_byte);
    let with_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| container_of(&original, &Options { chunk_size: 8192, ..Options::default() }))
    };
    assert!(with_threads(1) == with_threads(4));
}

#[test]
fn windows_and_samples_do_not_show() {
    // Longer than a window, so that it is planned on a sample and hashed in parts.
    let original = model(&[("BF16", 2, vec![7]), ("BF16", 2, vec![10_000_003]), ("F32", 4, vec![5])], weight_byte);
    let container = open(container_of(&original, &Options::default())).unwrap();
    assert!(contents(&container).unwrap() == original);
    use md5::Digest;
    for tensor in container.tensors() {
        let bytes = &original[tensor.range.start as usize..tensor.range.end as usize];
        assert_eq!(tensor.md5, <[u8; 16]>::from(md5::Md5::digest(bytes)), "{}", tensor.name);
    }
    assert_eq!(container.sha256(), &<[u8; 32]>::from(sha2::Sha256::digest(&original)));
    assert!(container.stored_len() < original.len() as u64 * 3 / 4, "{}", container.stored_len());
}

#[test]
fn tied_weights_are_stored_once() {
    let one = model(&[("BF16", 2, vec![300, 400])], weight_byte);
    let len = 300 * 400 * 2;
    let two = model(&[("BF16", 2, vec![300, 400]), ("F32", 4, vec![1]), ("BF16", 2, vec![300, 400])], |i| {
        if i < len + 4 { weight_byte(i % len) } else { weight_byte(i - len - 4) }
    });
    let (one, both) = (container_of(&one, &Options::default()), container_of(&two, &Options::default()));
    assert!(both.len() < one.len() + 1000, "{} against {}", both.len(), one.len());
    assert!(contents(&open(both).unwrap()).unwrap() == two);
}

#[test]
fn tensors_are_recorded() {
    let original = model(&[("F32", 4, vec![2, 3]), ("BF16", 2, vec![]), ("F16", 2, vec![0, 5])], weight_byte);
    let container = open(container_of(&original, &Options::default())).unwrap();
    let tensors: Vec<_> =
        container.tensors().iter().map(|t| (t.name.as_str(), t.dtype.as_str(), &t.shape[..])).collect();
    assert_eq!(tensors, [("t0", "F32", &[2, 3][..]), ("t1", "BF16", &[]), ("t2", "F16", &[0, 5])]);
    assert_eq!(container.original_name(), "model.safetensors");
}

#[test]
fn a_newer_container_is_unsupported() {
    let mut container = container_of(b"something", &Options::default());
    // The lowest version that has all of it.
    assert_eq!(open(container.clone()).unwrap().version(), Version { major: 1, minor: 1 });
    container[10] += 2;
    // The footer knows better.
    assert_eq!(open(container.clone()).unwrap_err().kind(), ErrorKind::Corrupt);
    let footer = container.len() - 48;
    container[footer + 30] += 2;
    let sum = checksum(&container[footer..footer + 32]);
    container[footer + 32..footer + 40].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(open(container.clone()).unwrap_err().kind(), ErrorKind::Unsupported);
    // So may a footer that is no longer one.
    assert_eq!(open(container[..footer].to_vec()).unwrap_err().kind(), ErrorKind::Unsupported);
    container[..4].copy_from_slice(b"BGSM");
    assert_eq!(open(container).unwrap_err().kind(), ErrorKind::NotAContainer);
    assert_eq!(open(Vec::new()).unwrap_err().kind(), ErrorKind::NotAContainer);
}

#[test]
fn impossible_options_are_refused() {
    for chunk_size in [0, 8, 65, 100, 8 << 20 | 8] {
        let options = Options { chunk_size, ..Options::default() };
        let error = compress(&Memory::new(vec![1, 2, 3]), "x", &options, &mut Vec::new(), &()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
    for name in ["", ".", "..", "a/b", "a\0b"] {
        assert!(compress(&Memory::new(vec![1]), name, &Options::default(), &mut Vec::new(), &()).is_err());
    }
}

#[test]
fn a_cancelled_operation_ends() {
    struct Cancelled;
    impl crate::Progress for Cancelled {
        fn advance(&self, _: u64) {}
        fn cancelled(&self) -> bool {
            true
        }
    }
    let error =
        compress(&Memory::new(vec![1; 1000]), "x", &Options::default(), &mut Vec::new(), &Cancelled).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}
