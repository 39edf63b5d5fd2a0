//! Files of the Python package that were forged. Each rule that the reader holds them to has its case here; what it says
//! of the file is part of it, so that a case cannot be refused for another reason than its own.
//!
//! No tensor here has an MD5 unless the case is about that: the rules must hold without it.

#[path = "support/upstream.rs"]
mod support;

use std::sync::Arc;

use bigsmall_codec::upstream::UpstreamFile;
use bigsmall_codec::{ErrorKind, Memory, Original};
use md5::{Digest, Md5};
use serde_json::{Value, json};
use support::{Parts, Stored, file};

fn open(file: Vec<u8>) -> bigsmall_codec::Result<UpstreamFile> {
    UpstreamFile::from_store(Box::new(Memory::new(file)), &[], &Arc::default())
}

/// What reading all of a file comes to.
fn read(file: Vec<u8>) -> bigsmall_codec::Result<Vec<u8>> {
    let file = open(file)?;
    // What says that it is larger than any of these tests' files is not to be believed.
    let mut bytes = vec![0; file.len().min(1 << 20) as usize];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

#[track_caller]
fn refused_as(kind: ErrorKind, file: Vec<u8>, why: &str) {
    let error = read(file).expect_err(why);
    assert!(error.to_string().contains(why), "{why:?} expected: {error}");
    assert_eq!(error.kind(), kind, "{error}");
}

#[track_caller]
fn refused(file: Vec<u8>, why: &str) {
    refused_as(ErrorKind::Corrupt, file, why);
}

/// Where the parts of a blob of `bf16_se_rans` and its kin are.
struct Places {
    symbols: usize,
    counts: usize,
    code_len: usize,
    code: usize,
    mantissas: usize,
    exponents: usize,
    first_record: usize,
}

fn u16_at(blob: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([blob[at], blob[at + 1]]))
}

fn u32_at(blob: &[u8], at: usize) -> usize {
    u32::from_le_bytes(blob[at..at + 4].try_into().unwrap()) as usize
}

fn put_u16(blob: &mut [u8], at: usize, value: usize) {
    blob[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
}

fn put_u32(blob: &mut [u8], at: usize, value: usize) {
    blob[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
}

fn places(blob: &[u8]) -> Places {
    let symbols = 6;
    let counts = symbols + 2 * u16_at(blob, 4);
    let code_len = counts + 4 * u16_at(blob, 4);
    let code = code_len + 4;
    let mantissas = code + u32_at(blob, code_len) + 4;
    let exponents = mantissas + 4;
    let first_record = exponents + 2 * u32_at(blob, mantissas);
    Places { symbols, counts, code_len, code, mantissas, exponents, first_record }
}

/// A case of a tensor that is coded by `codec` in its fixture.
#[track_caller]
fn forged(codec: &str, why: &str, forge: impl FnOnce(&mut Vec<u8>, Places)) {
    let mut stored = Stored::of_fixture(&format!("codec_{codec}"), codec);
    read(stored.file()).expect("it is sound before");
    let places = places(&stored.blob);
    forge(&mut stored.blob, places);
    refused(stored.file(), why);
}

#[test]
fn tables_of_constriction_are_checked() {
    for codec in ["bf16_se_rans", "bf16_se_ac"] {
        forged(codec, "elements are stored where", |blob, _| blob[0] ^= 1);
        forged(codec, "513 different symbols of an alphabet of 512", |blob, _| put_u16(blob, 4, 513));
        forged(codec, "symbol 512 of an alphabet of 512", |blob, at| put_u16(blob, at.counts - 2, 512));
        forged(codec, "do not ascend", |blob, at| put_u16(blob, at.symbols, 511));
        forged(codec, "do not ascend", |blob, at| {
            let second = u16_at(blob, at.symbols + 2);
            put_u16(blob, at.symbols, second);
        });
        forged(codec, "a table counts", |blob, at| blob[at.counts] = blob[at.counts].wrapping_add(1));
        forged(codec, "a table counts", |blob, at| put_u32(blob, at.counts, u32::MAX as usize));
        forged(codec, "occur 0 times", |blob, at| put_u32(blob, at.counts, 0));
    }
}

#[test]
fn lengths_within_a_blob_are_checked() {
    for codec in ["bf16_se_rans", "bf16_se_ac", "bf16_se_tans"] {
        forged(codec, "bytes expected", |blob, at| put_u32(blob, at.code_len, u32::MAX as usize));
        forged(codec, "bytes expected", |blob, at| put_u32(blob, at.mantissas - 4, u32::MAX as usize));
        forged(codec, "bytes expected", |blob, _| blob.truncate(3));
        forged(codec, "too many", |blob, _| blob.push(0));
    }
    for codec in ["bf16_se_rans", "bf16_se_ac"] {
        forged(codec, "not made of 32-bit words", |blob, at| {
            let len = u32_at(blob, at.code_len);
            put_u32(blob, at.code_len, len - 1);
            blob.remove(at.code);
        });
    }
    forged("bf16_se_tans", "not made of 16-bit pieces", |blob, at| {
        let len = u32_at(blob, at.code_len);
        put_u32(blob, at.code_len, len - 1);
        blob.remove(at.code + len - 1);
    });
}

#[test]
fn buckets_are_compared_with_the_exponents() {
    for codec in ["bf16_se_rans", "bf16_se_ac", "bf16_se_tans"] {
        forged(codec, "257 different symbols of an alphabet of 256", |blob, at| put_u32(blob, at.mantissas, 257));
        forged(codec, "different symbols", |blob, at| put_u32(blob, at.mantissas, u32::MAX as usize));
        forged(codec, "do not ascend", |blob, at| put_u16(blob, at.exponents, 255));
        forged(codec, "0 mantissas", |blob, at| put_u32(blob, at.first_record, 0));
        forged(codec, "mantissas of exponent", |blob, at| put_u32(blob, at.first_record, u32::MAX as usize));
        // One exponent for another that does not occur: of some there are too few mantissas then.
        forged(codec, "fewer mantissas of an exponent", |blob, at| {
            let last = at.first_record - 2;
            let exponent = u16_at(blob, last);
            put_u16(blob, last, exponent + 1);
        });
    }
    for codec in ["bf16_se_rans", "bf16_se_ac"] {
        forged(codec, "a table counts", |blob, at| {
            let count = u32_at(blob, at.first_record);
            put_u32(blob, at.first_record, count + 1);
        });
    }
}

#[test]
fn streams_are_as_long_as_their_symbols_need() {
    forged("bf16_se_rans", "ends with an empty word", |blob, at| {
        let len = u32_at(blob, at.code_len);
        put_u32(blob, at.code + len - 4, 0);
    });
    for (codec, unit) in [("bf16_se_rans", 4), ("bf16_se_tans", 2)] {
        // More of them where they are read last: the first few are taken for symbols that the stream really ends with.
        forged(codec, "longer than its symbols need", |blob, at| {
            let len = u32_at(blob, at.code_len);
            put_u32(blob, at.code_len, len + 64 * unit);
            let last = if codec == "bf16_se_rans" { at.code } else { at.code + len };
            blob.splice(last..last, std::iter::repeat_n(1, 64 * unit));
        });
    }
    forged("bf16_se_ac", "ends before its last symbol", |blob, at| {
        let len = u32_at(blob, at.code_len);
        put_u32(blob, at.code_len, 0);
        blob.drain(at.code..at.code + len);
    });
    forged("bf16_se_ac", "stands for no symbol", |blob, at| {
        put_u32(blob, at.code, u32::MAX as usize);
        put_u32(blob, at.code + 4, u32::MAX as usize);
    });
}

#[test]
fn frequencies_add_up_to_their_power_of_two() {
    forged("bf16_se_tans", "a table counts 4097 symbols where there are 4096", |blob, at| {
        let count = u32_at(blob, at.counts);
        put_u32(blob, at.counts, count + 1);
    });
    forged("bf16_se_tans", "where there are 1024", |blob, at| {
        let count = at.first_record + 5 + usize::from(blob[at.first_record + 4]);
        let frequency = u32_at(blob, count);
        put_u32(blob, count, frequency + 1);
    });
    let stored = Stored::of_fixture("codec_bf16_se_single_kernel", "bf16_se_single_kernel");
    let case = |why: &str, forge: &dyn Fn(&mut Vec<u8>)| {
        let mut stored = stored.clone();
        forge(&mut stored.blob);
        refused(stored.file(), why);
    };
    let symbols = u16_at(&stored.blob, 4);
    let state = 6 + 6 * symbols;
    let records = state + 8 + 2 * u32_at(&stored.blob, state + 4);
    case("where there are 4096", &|blob| blob[6 + 2 * symbols] ^= 1);
    case("bytes expected", &|blob| put_u32(blob, state + 4, u32::MAX as usize));
    case("out of order or impossible", &|blob| put_u16(blob, records + 4, 256));
    case("bytes too many", &|blob| {
        let fewer = u32_at(blob, records) - 1;
        put_u32(blob, records, fewer);
    });
}

#[test]
fn parallel_streams_are_checked() {
    let stored = Stored::of_fixture("codec_bf16_parallel_v1", "bf16_parallel_v1");
    let case = |why: &str, forge: &dyn Fn(&mut Vec<u8>)| {
        let mut stored = stored.clone();
        forge(&mut stored.blob);
        refused(stored.file(), why);
    };
    read(stored.file()).unwrap();
    let blob = &stored.blob;
    let symbols = u16_at(blob, 14);
    let exponents = 16 + 6 * symbols;
    let count = u32_at(blob, exponents);
    let mut offsets = exponents + 4 + 2 * count;
    for _ in 0..count {
        offsets += 1 + 5 * usize::from(blob[offsets]);
    }
    case("does not begin as", &|blob| blob[3] = b'2');
    case("elements are stored where", &|blob| blob[4] ^= 1);
    case("0 streams", &|blob| put_u16(blob, 8, 0));
    case("65535 streams", &|blob| put_u16(blob, 8, 65535));
    case("add up to something that they never do", &|blob| put_u16(blob, 10, 13));
    case("257 different symbols", &|blob| put_u32(blob, exponents, 257));
    case("offsets of the streams", &|blob| put_u32(blob, offsets, 1));
    case("offsets of the streams", &|blob| put_u32(blob, offsets + 4, u32::MAX as usize));
    // An exponent whose table is taken away.
    case("no table for exponent", &|blob| {
        let exponent = u16_at(blob, exponents + 4);
        put_u16(blob, exponents + 4, exponent - 1);
    });
}

#[test]
fn contexts_are_checked() {
    let stored = Stored::of_fixture("codec_bf16_v8", "bf16_v8");
    let case = |why: &str, forge: &dyn Fn(&mut Vec<u8>)| {
        let mut stored = stored.clone();
        forge(&mut stored.blob);
        refused(stored.file(), why);
    };
    read(stored.file()).unwrap();
    assert_eq!(stored.blob[0], 1);
    // Behind the first byte, the number of elements, rows and columns is the section of the first row.
    let (row, section) = (17, |blob: &[u8], at: usize| 12 + u32_at(blob, at) + 10 * u32_at(blob, at + 4));
    let contexts = row + section(&stored.blob, row);
    let mut mantissas = contexts + 2;
    for _ in 0..u16_at(&stored.blob, contexts) {
        mantissas += 2 + section(&stored.blob, mantissas + 2);
    }
    case("of the shape are stored", &|blob| blob[1] ^= 1);
    case("elements", &|blob| put_u32(blob, 9, 1 << 31));
    case("counts of", &|blob| put_u32(blob, row + 8, 1));
    case("bytes expected", &|blob| put_u32(blob, row, u32::MAX as usize));
    case("context 256 is out of order or impossible", &|blob| put_u16(blob, contexts + 2, 256));
    case("exponent 256 is out of order or impossible", &|blob| put_u16(blob, mantissas + 2, 256));
    case("than are stored", &|blob| {
        // One count more in the last context: the number is of 64 bits.
        let last =
            (0..u16_at(blob, contexts)).fold((0, contexts + 2), |(_, at), _| (at, at + 2 + section(blob, at + 2)));
        let count = last.1 - 8;
        blob[count] += 1;
    });
    case("is said to occur", &|blob| blob[contexts - 1] = 0x80);
    let form = |number: u8| {
        let mut stored = stored.clone();
        stored.blob[0] = number;
        stored.file()
    };
    for number in [2, 3, 255] {
        refused_as(ErrorKind::Unsupported, form(number), "there is no form");
    }
}

fn zstd_of(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 3).unwrap()
}

/// Its length in 32 bits, then a blob.
fn sized(blob: &[u8]) -> Vec<u8> {
    [&(blob.len() as u32).to_le_bytes(), blob].concat()
}

#[test]
fn what_is_inflated_is_as_long_as_it_should_be() {
    let stored = |codec: &str, blob: Vec<u8>| Stored::new("U8", &[10], codec, Value::Null, blob).file();
    read(stored("zstd", zstd_of(&[7; 10]))).unwrap();
    refused(stored("zstd", zstd_of(&[7; 11])), "of 11 bytes where 10 are expected");
    refused(stored("zstd", zstd_of(&[7; 9])), "of 9 bytes where 10 are expected");
    refused(stored("zstd", zstd_of(&vec![7; 1 << 20])), "where 10 are expected");
    refused(stored("zstd", vec![1; 20]), "Zstandard");
    let mut cut = zstd_of(&[7; 10]);
    cut.pop();
    refused(stored("zstd", cut), "cannot be inflated");
    // A frame that does not say how long it is.
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    std::io::Write::write_all(&mut encoder, &[7; 1000]).unwrap();
    refused(stored("zstd", encoder.finish().unwrap()), "cannot be inflated");
    refused(stored("raw", vec![0; 9]), "9 bytes are stored where 10 are expected");
    refused(stored("raw", vec![0; 11]), "11 bytes are stored where 10 are expected");
}

#[test]
fn other_codecs_are_checked() {
    let special =
        |kind: &str, blob: Vec<u8>| Stored::new("U16", &[2, 2], "special", json!({ "special_kind": kind }), blob);
    let few = |width: u8, palette: &[u8], indices: &[u8], items: u32| {
        let head = [width, (palette.len() / usize::from(width)) as u8];
        special("lowcard", [&head[..], palette, &sized(&zstd_of(indices)), &items.to_le_bytes()].concat())
    };
    read(few(2, &[1, 2, 3, 4], &[0, 1, 1, 0], 4).file()).unwrap();
    refused(few(2, &[1, 2, 3, 4], &[0, 1, 2, 0], 4).file(), "points beyond the 2 values");
    refused(few(2, &[1, 2, 3, 4], &[0, 1, 1, 0], 5).file(), "of the shape are stored");
    refused(few(2, &[1, 2, 3, 4], &[0, 1, 1], 3).file(), "of 3 bytes where 4 are expected");
    refused(few(3, &[1, 2, 3], &[0; 4], 4).file(), "elements of 3 bytes");
    refused(special("lowcard", vec![2, 200, 1]).file(), "bytes expected");
    refused_as(ErrorKind::Unsupported, special("other", vec![]).file(), "of kind \"other\"");
    refused(Stored::new("U16", &[4], "special", Value::Null, [1]).file(), "without its kind");

    let rows = |width: u8, delta: u8, rows: u32, columns: u32| {
        let numbers = [rows, columns, 0].map(u32::to_le_bytes).concat();
        special("wpe_delta", [&[width, delta], &numbers[..]].concat()).file()
    };
    refused(rows(2, 2, 2, 2), "neither differences nor elements");
    refused(rows(2, 1, 2, 3), "are not 8 bytes");
    refused(rows(2, 1, u32::MAX, u32::MAX), "are not 8 bytes");
    refused(rows(2, 1, 2, 2), "bytes expected");

    let mut planes = Stored::of_fixture("codec_fp32_se_ac", "fp32_se_ac");
    read(planes.file()).unwrap();
    let code_len = 6 + 6 * u16_at(&planes.blob, 4);
    let elements = u32_at(&planes.blob, 0);
    planes.blob.truncate(code_len + 4 + u32_at(&planes.blob, code_len));
    for bits in [[0xff; 3], [0, 0, 0x80]] {
        let mut planes = planes.clone();
        bits.into_iter().for_each(|byte| planes.blob.extend(sized(&zstd_of(&vec![byte; elements]))));
        refused(planes.file(), "7 bits of a mantissa are more");
    }
    let mut shorter = planes.clone();
    shorter.blob.extend(sized(&zstd_of(&vec![0; elements - 1])));
    refused(shorter.file(), "are expected");

    let halves = [&4u32.to_le_bytes()[..], &[9], &sized(&[])].concat();
    refused_as(
        ErrorKind::Unsupported,
        Stored::new("F32", &[4], "bf16_native_f32_v2", Value::Null, halves).file(),
        "no way 9",
    );
    let nibbles = |elements: u32, packed: u8| {
        Stored::new(
            "F4",
            &[8],
            "fp4_cat_ac",
            Value::Null,
            [&elements.to_le_bytes()[..], &[0, packed], &sized(&[])].concat(),
        )
    };
    refused(nibbles(8, 2).file(), "neither packed nor not");
    refused(nibbles(7, 1).file(), "7 elements are stored in 4 bytes");
    refused(nibbles(8, 0).file(), "8 elements are stored in 4 bytes");
    refused(nibbles(8, 1).file(), "a table counts 0 symbols where there are 8");

    let mask = [&4u32.to_le_bytes()[..], &[0; 2], &3u32.to_le_bytes(), &2u32.to_le_bytes()].concat();
    refused(Stored::new("BF16", &[4], "bf16_sparsity_v1", Value::Null, mask).file(), "3 and 2 elements are not 4");
    let levels = [&4u32.to_le_bytes()[..], &[0; 2], &sized(&[0; 2])].concat();
    refused(Stored::new("BF16", &[4], "fp2_residual_v1", Value::Null, levels).file(), "2 bytes of levels");
    let wrong_size =
        Stored { entry: json!({ "name": "t", "dtype": "F32", "shape": [4], "codec": "bf16_se_ac" }), blob: vec![0] };
    refused(wrong_size.file(), "which the dtype has not");
}

#[test]
fn entries_are_compared_with_the_file() {
    let parts = Parts::of(&Stored::new("U8", &[4], "raw", Value::Null, [1, 2, 3, 4]).file());
    let case = |why: &str, forge: &dyn Fn(&mut Value)| {
        let mut parts = parts.clone();
        forge(&mut parts.tensors()[0]);
        refused(parts.file(), why);
    };
    case("outside of the file", &|entry| entry["offset"] = 1.into());
    case("outside of the file", &|entry| entry["compressed_bytes"] = 5.into());
    case("outside of the file", &|entry| entry["offset"] = u64::MAX.into());
    case("outside of the file", &|entry| entry["compressed_bytes"] = u64::MAX.into());
    case("offset is missing or none", &|entry| entry["offset"] = (-1).into());
    case("shape is missing or none", &|entry| entry["shape"] = json!([-4]));
    case("shape is missing or none", &|entry| entry["shape"] = json!([4.5]));
    case("no possible tensor", &|entry| entry["shape"] = json!([u64::MAX, 2]));
    case("no possible tensor", &|entry| (entry["shape"], entry["dtype"]) = (json!([1u64 << 61]), "F64".into()));
    case("no possible tensor", &|entry| (entry["shape"], entry["dtype"]) = (json!([3]), "F4".into()));
    case("cannot come of 4", &|entry| entry["shape"] = json!([1u64 << 40]));
    case("codec is missing or none", &|entry| entry["codec"] = Value::Null);
    case("has no name", &|entry| entry["name"] = 7.into());
    case("md5 is missing or none", &|entry| entry["md5"] = "xyz".into());
    case("md5 is missing or none", &|entry| entry["md5"] = "0123456789abcdef0123456789abcdeg".into());
    case("do not have the recorded MD5", &|entry| entry["md5"] = "0123456789abcdef0123456789ABCDEF".into());
    case("that metadata have", &|entry| entry["name"] = "__metadata__".into());
    let unsupported = |key: &str, value: &str| {
        let mut parts = parts.clone();
        parts.tensors()[0][key] = value.into();
        parts.file()
    };
    refused_as(ErrorKind::Unsupported, unsupported("dtype", "float7"), "the dtype \"float7\" is not known");
    refused_as(ErrorKind::Unsupported, unsupported("codec", "bf16_next"), "bf16_next: this codec");
    let mut right = parts.clone();
    let md5: String = Md5::digest([1, 2, 3, 4]).iter().map(|byte| format!("{byte:02x}")).collect();
    right.tensors()[0]["md5"] = md5.into();
    assert!(read(right.file()).unwrap().ends_with(&[1, 2, 3, 4]));
}

/// An unknown codec is the matter of its own tensor.
#[test]
fn what_is_not_known_does_not_disturb_its_neighbours() {
    let mut other = Stored::new("U8", &[2], "bf16_next", Value::Null, [9]);
    other.entry["name"] = "zz".into();
    let file = open(file(&[Stored::new("U8", &[4], "raw", Value::Null, [1, 2, 3, 4]), other])).unwrap();
    let mut bytes = [0; 4];
    file.read_at(file.tensors()[0].range.start, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 2, 3, 4]);
    let damage = file.verify(&()).unwrap().damage;
    assert_eq!((damage.len(), damage[0].tensor, damage[0].kind), (1, Some(1), ErrorKind::Unsupported));
}

#[test]
fn headers_are_checked() {
    let sound = Stored::new("U8", &[4], "raw", Value::Null, [1, 2, 3, 4]).file();
    let with = |at: usize, bytes: &[u8]| {
        let mut file = sound.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    for version in [0, 3, u16::MAX] {
        refused_as(ErrorKind::Unsupported, with(4, &version.to_le_bytes()), &format!("version {version}"));
    }
    refused_as(ErrorKind::Unsupported, with(0, b"BGSD"), "two qualities");
    refused_as(ErrorKind::NotAContainer, with(0, b"BGSX"), "not a .bs file");
    refused(with(6, &u32::MAX.to_le_bytes()), "a header of 4294967295 bytes");
    refused(with(6, &(sound.len() as u32).to_le_bytes()), "a header of");
    refused(with(10, b"["), "the header");
    refused(with(10, b"\xff"), "the header");
    refused(sound[..9].to_vec(), "ends within");
    let header = |header: Value| Parts { version: 1, header, data: Vec::new() }.file();
    refused(header(json!([])), "lists no tensors");
    refused(header(json!({ "tensors": {} })), "lists no tensors");
    refused(header(json!({ "tensors": [7] })), "has no name");
    refused(header(json!({ "tensors": [], "tensor_count": 1 })), "counts other tensors");
    refused(header(json!({ "tensors": [], "safetensors_metadata": { "a": 1 } })), "metadata of no text");
    refused(header(json!({ "tensors": [], "safetensors_metadata": [] })), "metadata of no text");
    assert_eq!(read(header(json!({ "tensors": [] }))).unwrap(), b"\x08\0\0\0\0\0\0\0{}      ");
    let deep = [b"BGSM\x01\0", &200_000u32.to_le_bytes()[..], &[b'['; 200_000]].concat();
    refused(deep, "the header");
}

fn named(name: &str, dtype: &str, shape: &[u64], codec: &str, extra: Value, blob: &[u8]) -> Stored {
    let mut stored = Stored::new(dtype, shape, codec, extra, blob);
    stored.entry["name"] = name.into();
    stored
}

#[test]
fn ties_lead_to_a_tensor_of_the_same_length() {
    let raw = |name: &str| named(name, "U8", &[4], "raw", Value::Null, &[1, 2, 3, 4]);
    let tied = |name: &str, to: &str| named(name, "U8", &[4], "tied_ref", json!({ "tied_to": to }), &[]);
    read(file(&[tied("b", "a"), raw("a")])).expect("whichever comes first");
    // The dtype is its own.
    let other = named("b", "I8", &[2, 2], "tied_ref", json!({ "tied_to": "a" }), &[]);
    assert_eq!(open(file(&[raw("a"), other])).unwrap().tensors()[0].dtype, "I8");
    refused(file(&[raw("a"), raw("a")]), "two tensors \"a\"");
    refused(file(&[tied("a", "a")]), "tied to itself");
    refused(file(&[tied("a", "b"), tied("b", "a")]), "tied to itself");
    refused(file(&[tied("a", "b")]), "tied to a tensor that is not there");
    refused(file(&[named("a", "U8", &[4], "tied_ref", json!({ "tied_to": 4 }), &[])]), "that is not there");
    let longer = named("b", "U8", &[5], "tied_ref", json!({ "tied_to": "a" }), &[]);
    refused(file(&[raw("a"), longer]), "tied to a tensor of another length");
    let chain: Vec<Stored> = (0..100).map(|number| tied(&number.to_string(), &(number + 1).to_string())).collect();
    refused(file(&[chain, vec![raw("100")]].concat()), "others that are tied in turn");
}

/// A group of two tensors of two bytes.
fn group(extra: Value, blob: &[u8]) -> Vec<Stored> {
    let member = json!({ "group_master": "a", "member_index": 1 });
    vec![named("a", "U16", &[1], "group_stream_v1", extra, blob), named("b", "U16", &[1], "group_member", member, &[])]
}

#[test]
fn groups_are_checked() {
    let stack = json!({ "members": ["a", "b"], "group_kind": "stack", "inner_codec": "raw", "inner_extras": null });
    assert!(read(file(&group(stack.clone(), &[1, 0, 2, 0]))).unwrap().ends_with(&[1, 0, 2, 0]));
    let chain =
        json!({ "members": ["a", "b"], "group_kind": "chain", "chain_parts": [["raw", null, 2], ["raw", null, 2]] });
    assert!(read(file(&group(chain.clone(), &[1, 0, 0xff, 0xff]))).unwrap().ends_with(&[1, 0, 0, 0]));
    let case = |extra: &Value, key: &str, value: Value, why: &str| {
        let mut extra = extra.clone();
        extra[key] = value;
        refused(file(&group(extra, &[1, 0, 2, 0])), why);
    };
    case(&stack, "members", json!([]), "does not know it");
    case(&stack, "members", Value::Null, "does not name its members");
    case(&stack, "members", json!(["a", "a"]), "names a member twice");
    case(&stack, "members", json!(["a", 7]), "names a member twice, or not at all");
    case(&stack, "members", json!(["a", "c"]), "does not know it");
    case(&stack, "members", json!(["b", "a"]), "its number in its group");
    case(&stack, "members", json!(["a", "b", "c"]), "4 bytes are stored where 6 are expected");
    case(&stack, "inner_codec", json!("group_stream_v1"), "a group within a group");
    case(&stack, "inner_codec", Value::Null, "a group without its codec");
    case(&stack, "inner_codec", json!("tied_ref"), "a reference where bytes are expected");
    case(&chain, "chain_parts", json!([["raw", null, 2]]), "a part for each member");
    case(&chain, "chain_parts", json!([["raw", null, 2], ["raw", null, 3]]), "bytes expected");
    case(&chain, "chain_parts", json!([["raw", null, 2], ["raw", null, -1]]), "has no length");
    case(&chain, "chain_parts", json!([["raw", null, 2], ["raw", null, 0]]), "0 bytes are stored");
    case(&chain, "chain_parts", json!([["raw", null, 2], ["group_stream_v1", null, 2]]), "a group within a group");
    let mut sizes = group(stack.clone(), &[1, 0, 2, 0]);
    sizes[1].entry["shape"] = json!([2]);
    refused(file(&sizes), "is none, or of another kind");
    let mut orphan = group(stack.clone(), &[1, 0, 2, 0]);
    orphan.remove(0);
    refused(file(&orphan), "the master of its group is not there");
    let mut kind = stack;
    kind["group_kind"] = "ring".into();
    refused_as(ErrorKind::Unsupported, file(&group(kind, &[1, 0, 2, 0])), "a group of kind");
    let names = (0..62).map(|number| number.to_string()).chain(["a", "b"].map(str::to_owned));
    let mut large = group(chain, &[]);
    large[0].entry["extra"]["members"] = names.collect();
    large[1].entry["extra"]["member_index"] = 63.into();
    large.iter_mut().for_each(|stored| stored.entry["shape"] = json!([1u64 << 59]));
    refused(file(&large), "overflow");
}

/// What a small file may ask for is bounded: here each of many tensors wants a terabyte.
#[test]
fn a_small_file_does_not_get_much_memory() {
    for codec in
        ["zstd", "raw", "bf16_se_rans", "fp32_se_ac", "fp8_cat_ac", "special", "group_stream_v1", "zstd_xor_delta"]
    {
        let stored = Stored::new("U16", &[1 << 39], codec, Value::Null, vec![0; 1000]);
        let error = read_start(stored.file()).unwrap_err();
        let expected = ["cannot come of 1000", "another model", "does not name its members"];
        assert!(expected.iter().any(|why| error.to_string().contains(why)), "{codec}: {error}");
    }
}

/// The first bytes of the only tensor.
fn read_start(file: Vec<u8>) -> bigsmall_codec::Result<[u8; 4]> {
    let file = open(file)?;
    let mut bytes = [0; 4];
    file.read_at(file.tensors()[0].range.start, &mut bytes)?;
    Ok(bytes)
}
