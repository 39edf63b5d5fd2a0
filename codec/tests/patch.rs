//! Patches: what they promise, for any pair of models.

#[path = "support/patch.rs"]
mod support;

use std::sync::Arc;

use bigsmall_codec::container::{Mode, compress, compress_patch};
use bigsmall_codec::patch::{Check, Model};
use bigsmall_codec::verify::verify;
use bigsmall_codec::{ChunkIndex, Container, ErrorKind, Memory, Options, Original, Stored};
use proptest::prelude::*;
use support::*;

const FLOATS: [&str; 5] = ["BF16", "F16", "F32", "F8_E4M3", "F8_E5M2"];

/// Makes a patch, opens it over its base, compares what comes out, and gives it.
fn round_trip(tuned: &[u8], base: &Model, options: &Options) -> Vec<u8> {
    let patch = patch(tuned, base, options);
    let opened = over(open(&patch), base);
    assert!(contents(&opened) == tuned, "the original did not come back");
    assert!(verify(&opened, &()).unwrap().is_sound());
    patch
}

/// The container of the same file without a base.
fn alone(file: &[u8], options: &Options) -> Vec<u8> {
    let mut container = Vec::new();
    compress(&Memory::new(file.to_vec()), "tuned.safetensors", options, &mut container, &()).unwrap();
    container
}

/// How many chunks each codec has.
fn chunks_of(patch: &[u8], codec: &str) -> u64 {
    open(patch).codec_usage().iter().filter(|usage| usage.codec.name() == codec).map(|usage| usage.chunks).sum()
}

fn names(patch: &[u8]) -> Vec<String> {
    open(patch).base_record().unwrap().tensors.iter().map(|tensor| tensor.name.clone()).collect()
}

#[test]
fn floats_of_all_kinds_are_smaller_against_their_base() {
    let before = weights(60_000, 1);
    let after = tuned(&before, 0.0005, 2);
    for dtype in FLOATS {
        let base = file(&[Tensor::new("a", dtype, &[300, 200], &before)]);
        let tuned = file(&[Tensor::new("a", dtype, &[300, 200], &after)]);
        for mode in [Mode::Balanced, Mode::Storage] {
            let options = Options { mode, chunk_size: mode.chunk_size() };
            let (patch, alone) = (round_trip(&tuned, &model(&[memory(&base)]), &options), alone(&tuned, &options));
            let most = if dtype == "F32" { 60 } else { 40 };
            assert!(patch.len() < alone.len() * most / 100, "{dtype}: {} bytes, {} alone", patch.len(), alone.len());
        }
    }
}

#[test]
fn what_did_not_change_takes_no_room() {
    let weights = weights(400_000, 3);
    let mut tensors = vec![
        Tensor::new("frozen", "BF16", &[400, 500], &weights),
        Tensor::new("ids", "I32", &[50, 100], &weights),
        Tensor::new("tiny", "F32", &[7], &weights),
        Tensor::new("tinier", "F32", &[3], &weights),
    ];
    let base = model(&[memory(&file(&tensors))]);
    tensors.push(Tensor::new("new", "BF16", &[100], &weights));
    let tuned = file(&tensors);
    let patch = round_trip(&tuned, &base, &Options::default());
    assert!(patch.len() < 1500, "{} bytes", patch.len());
    assert_eq!(open(&patch).version().to_string(), "1.2");
    assert_eq!(names(&patch), ["frozen", "ids", "tiny", "tinier"]);
    // Without a base it says so, and knows what it needs.
    let opened = open(&patch);
    let error = opened.read_at(opened.len() / 2, &mut [0; 100]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BaseMissing);
    assert!(error.to_string().contains("base-model"), "{error}");
    // What is not coded against the base can be read.
    opened.read_at(0, &mut [0; 8]).unwrap();
}

#[test]
fn a_base_that_is_of_no_use_makes_an_ordinary_container() {
    let base = model(&[memory(&file(&[Tensor::new("a", "BF16", &[200, 100], &weights(20_000, 1))]))]);
    let options = Options::default();
    for name in ["a", "b"] {
        let stranger = file(&[Tensor::new(name, "BF16", &[100, 200], &weights(20_000, 2))]);
        let patch = patch(&stranger, &base, &options);
        assert!(open(&patch).base_record().is_none());
        assert!(patch == alone(&stranger, &options), "{name}");
    }
    // The same shape, and still nothing in common.
    let stranger = file(&[Tensor::new("a", "BF16", &[200, 100], &weights(20_000, 2))]);
    let (patch, alone) = (round_trip(&stranger, &base, &options), alone(&stranger, &options));
    assert!(patch.len() <= alone.len() + alone.len() / 1000 + 200, "{} and {}", patch.len(), alone.len());
    assert!(open(&patch).base_record().is_none());
}

#[test]
fn tensors_are_found_wherever_they_lie() {
    let before: Vec<Vec<f32>> = (0..4).map(|seed| weights(30_000, seed)).collect();
    let tensor = |number: usize, weights: &[f32]| Tensor::new(&format!("t{number}"), "BF16", &[300, 100], weights);
    let shard = |numbers: &[usize]| memory(&file(&numbers.iter().map(|&n| tensor(n, &before[n])).collect::<Vec<_>>()));
    let after: Vec<Tensor> = [2, 0, 3, 1].map(|n| tensor(n, &tuned(&before[n], 0.001, 9))).into();
    let tuned = file(&after);
    let options = Options::default();
    let whole = patch(&tuned, &model(&[shard(&[0, 1, 2, 3])]), &options);
    let sharded = [shard(&[3, 1]), shard(&[0]), shard(&[2])];
    let mut container = Vec::new();
    compress(&*sharded[0], "shard.safetensors", &options, &mut container, &()).unwrap();
    for first in [sharded[0].clone(), Arc::new(Container::from_store(Box::new(Memory::new(container))).unwrap())] {
        let base = model(&[first, sharded[1].clone(), sharded[2].clone()]);
        // The patch is the same, but for what it says about files, and either base does.
        assert!(contents(&over(open(&whole), &base)) == tuned);
        let again = round_trip(&tuned, &base, &options);
        assert!(again.len().abs_diff(whole.len()) < 16);
        let record = |patch: &[u8]| open(patch).base_record().unwrap().clone();
        assert_eq!(record(&again).fingerprint, record(&whole).fingerprint);
        assert_eq!((record(&again).files, record(&whole).files), (3, 1));
    }
}

/// The rows of `bytes`, of `heads` heads, as GGUF files have them: the halves of each head interleaved.
fn interleaved(bytes: &[u8], rows: usize, heads: usize) -> Vec<u8> {
    let (row, head) = (bytes.len() / rows, rows / heads);
    let source = |at: usize| at / head * head + at % head % 2 * (head / 2) + at % head / 2;
    (0..rows).flat_map(|at| bytes[source(at) * row..][..row].to_vec()).collect()
}

#[test]
fn rows_that_were_moved_within_heads_are_found() {
    // Of several chunks; the third has heads of which none begins in the middle of the tensor.
    let all: Vec<Vec<f32>> = (0..3).map(|seed| weights(160 * 1200, 60 + seed)).collect();
    let tensors = |names: [&str; 3], dtype| {
        names.into_iter().zip(&all).map(|(name, all)| Tensor::new(name, dtype, &[160, 1200], all)).collect::<Vec<_>>()
    };
    let moved = |names, dtype| {
        let mut tensors = tensors(names, dtype);
        for (tensor, heads) in tensors.iter_mut().zip([10, 2, 5]) {
            tensor.bytes = interleaved(&tensor.bytes, 160, heads);
        }
        file(&tensors)
    };
    let (names, others) = (["q", "k", "k2"], ["blk.0.attn_q", "blk.0.attn_k", "blk.1.attn_k"]);
    let (plain, options) = (file(&tensors(names, "BF16")), Options::default());
    let patch = round_trip(&moved(others, "BF16"), &model(&[memory(&plain)]), &options);
    assert!(patch.len() < 2000, "{} bytes", patch.len());
    assert_eq!(self::names(&patch), names);
    // The other way round, and of another dtype.
    let patch = round_trip(&plain, &model(&[memory(&moved(others, "BF16"))]), &options);
    assert!(patch.len() < 2000, "{} bytes the other way round", patch.len());
    let patch = round_trip(&moved(others, "F32"), &model(&[memory(&file(&tensors(names, "F32")))]), &options);
    assert!(patch.len() < 2000, "{} bytes of F32", patch.len());
    // A base whose rows are moved differently is another one.
    let wrong = memory(&moved(names, "F32"));
    let record = open(&patch).base_record().unwrap().clone();
    assert_eq!(model(&[wrong]).base_for(&record, Check::Md5, &()).unwrap_err().kind(), ErrorKind::WrongBase);
}

#[test]
fn renamed_tensors_are_found() {
    let before: Vec<Vec<f32>> = (0..4).map(|seed| weights(30_000, seed)).collect();
    let after: Vec<Vec<f32>> = before.iter().map(|weights| tuned(weights, 0.001, 9)).collect();
    let tensors = |names: [&str; 4], weights: &[Vec<f32>]| {
        let made = names.iter().zip(weights).map(|(name, weights)| Tensor::new(name, "BF16", &[300, 100], weights));
        file(&made.collect::<Vec<_>>())
    };
    let base = model(&[memory(&tensors(["model.a.w", "model.b.w", "c.w", "d.w"], &before))]);
    let options = Options::default();
    let same_names = round_trip(&tensors(["model.a.w", "model.b.w", "c.w", "d.w"], &after), &base, &options);
    // By prefix, by their own name, and by their values.
    let renamed = tensors(["a.w", "module.model.b.w", "c.w", "something.else"], &after);
    let patch = round_trip(&renamed, &base, &options);
    assert!(patch.len() < same_names.len() + 100, "{} and {}", patch.len(), same_names.len());
    assert_eq!(names(&patch), ["model.a.w", "model.b.w", "c.w", "d.w"]);
    // What has nothing in common is stored as in any container.
    let strangers: Vec<Vec<f32>> = (10..14).map(|seed| weights(30_000, seed)).collect();
    let stranger = tensors(["1", "2", "3", "4"], &strangers);
    assert!(round_trip(&stranger, &base, &options) == alone(&stranger, &options));
}

#[test]
fn a_base_of_other_floats_and_fewer_rows_is_of_use() {
    let before = weights(60_000, 5);
    let after = tuned(&before, 0.0002, 6);
    let options = Options::default();
    for (from, to, most) in
        [("BF16", "F32", 70), ("F16", "F32", 65), ("F32", "BF16", 40), ("F8_E4M3", "BF16", 90), ("BF16", "F16", 90)]
    {
        let base = model(&[memory(&file(&[Tensor::new("a", from, &[200, 300], &before)]))]);
        let tuned = file(&[Tensor::new("a", to, &[200, 300], &after)]);
        let (patch, alone) = (round_trip(&tuned, &base, &options), alone(&tuned, &options));
        assert!(patch.len() < alone.len() * most / 100, "{from} to {to}: {} of {}", patch.len(), alone.len());
    }
    // Eight rows more, as of a vocabulary that was extended; and fewer.
    let base = model(&[memory(&file(&[Tensor::new("a", "BF16", &[192, 300], &before)]))]);
    for rows in [200, 100] {
        let tuned = file(&[Tensor::new("a", "BF16", &[rows, 300], &after)]);
        let (patch, alone) = (round_trip(&tuned, &base, &options), alone(&tuned, &options));
        assert!(chunks_of(&patch, "delta") > 0);
        assert!(patch.len() < alone.len() / 2, "{rows}: {} of {}", patch.len(), alone.len());
    }
}

#[test]
fn a_wrong_base_is_refused_and_one_that_differs_elsewhere_is_not() {
    let before = weights(60_000, 7);
    let tensors = |changed: f32| {
        let mut unused = before.clone();
        unused[5] += changed;
        [Tensor::new("a", "BF16", &[200, 100], &before), Tensor::new("unused", "BF16", &[200, 100], &unused)]
    };
    let tuned = file(&[
        Tensor::new("a", "BF16", &[200, 100], &tuned(&before, 0.001, 8)),
        Tensor::new("b", "BF16", &[200, 100], &before[20_000..]),
    ]);
    let base = model(&[memory(&file(&tensors(0.0)))]);
    let patch = round_trip(&tuned, &base, &Options::default());
    assert_eq!(names(&patch), ["a"]);
    assert!(contents(&over(open(&patch), &model(&[memory(&file(&tensors(1.0)))]))) == tuned);

    let opened = open(&patch);
    let record = opened.base_record().unwrap();
    let mut wrong = before.clone();
    wrong[10] += 1.0;
    let refused = |tensor: Tensor, check: Check| {
        let error = model(&[memory(&file(&[tensor]))]).base_for(record, check, &()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongBase);
        error.to_string()
    };
    let differs = refused(Tensor::new("a", "BF16", &[200, 100], &wrong), Check::Md5);
    assert!(differs.contains("tensor \"a\" differs"), "{differs}");
    assert!(refused(Tensor::new("a", "F32", &[200, 100], &before), Check::Md5).contains("F32"));
    assert!(refused(Tensor::new("a", "BF16", &[100, 100], &before), Check::Probe).contains("[100, 100]"));
    assert!(refused(Tensor::new("c", "BF16", &[200, 100], &wrong), Check::Md5).contains("no tensor \"a\""));
    // A name is not needed to be found.
    let renamed = model(&[memory(&file(&[Tensor::new("x.a", "BF16", &[200, 100], &before)]))]);
    assert!(contents(&over(open(&patch), &renamed)) == tuned);

    // What a probe does not see, each chunk does: no wrong bytes, ever.
    wrong = before.clone();
    wrong[6000] += 1.0;
    let wrong = model(&[memory(&file(&[Tensor::new("a", "BF16", &[200, 100], &wrong)]))]);
    let base = wrong.base_for(record, Check::Probe, &()).unwrap();
    let over_wrong = open(&patch).with_base(base).unwrap();
    let error = over_wrong.read_at(2000, &mut [0; 100]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongBase);
    assert!(error.to_string().contains("tensor \"a\""), "{error}");
    assert!(!verify(&over_wrong, &()).unwrap().is_sound());
}

#[test]
fn patches_of_patches_are_read_through_all_of_them() {
    let mut weights = vec![weights(80_000, 11)];
    for seed in 0..3 {
        weights.push(tuned(&weights[seed], 0.0005, 20 + seed as u64));
    }
    let files: Vec<Vec<u8>> =
        weights.iter().map(|weights| file(&[Tensor::new("a", "BF16", &[400, 200], weights)])).collect();
    let mut below = memory(&files[0]);
    for tuned in &files[1..] {
        let base = model(&[below.clone()]);
        let patch = patch(tuned, &base, &Options::default());
        let opened = over(open(&patch), &base);
        assert!(contents(&opened) == *tuned);
        below = Arc::new(opened);
    }
    // A patch as a member of a model is believed what it records.
    let opened =
        over(open(&patch(&files[1], &model(&[memory(&files[0])]), &Options::default())), &model(&[memory(&files[0])]));
    let stored = Stored::Container(Box::new(opened));
    let mut base = Model::new("first");
    base.add_stored("first.bs", Arc::new(stored)).unwrap();
    round_trip(&files[2], &base, &Options::default());
}

#[test]
fn patches_are_the_same_whatever_the_number_of_threads() {
    let before = weights(900_000, 13);
    let tensor = |weights: &[f32]| file(&[Tensor::new("a", "F32", &[900, 1000], weights)]);
    let (base, tuned) = (model(&[memory(&tensor(&before))]), tensor(&tuned(&before, 0.001, 14)));
    let with_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| round_trip(&tuned, &base, &Options { chunk_size: 32 << 10, ..Options::default() }))
    };
    assert!(with_threads(1) == with_threads(3));
}

/// A tensor of a model and what became of it.
#[derive(Clone, Debug)]
struct Pair {
    dtypes: (&'static str, &'static str),
    rows: (usize, usize),
    columns: usize,
    rate: f32,
    named: bool,
}

fn pairs() -> impl Strategy<Value = Vec<Pair>> {
    let dtype = || prop::sample::select(vec!["BF16", "F16", "F32", "F8_E4M3", "F8_E5M2", "I32", "U8"]);
    let rate = prop::sample::select(vec![0.0, 1e-5, 1e-3, 0.1, 100.0]);
    let pair = (dtype(), dtype(), any::<bool>(), (0..40usize, 0..40usize), any::<bool>(), 1..300usize, rate, 0..8u8);
    let pair = pair.prop_map(|(one, other, same, (rows, other_rows), same_rows, columns, rate, unnamed)| Pair {
        dtypes: (one, if same { one } else { other }),
        rows: (rows, if same_rows { rows } else { other_rows }),
        columns,
        rate,
        named: unnamed > 0,
    });
    prop::collection::vec(pair, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_model_comes_back_of_any_base(
        pairs in pairs(), chunk_size in prop::sample::select(vec![64u32, 1000, 4096, 256 << 10]), storage: bool,
    ) {
        let (mut base, mut tuned_tensors) = (Vec::new(), Vec::new());
        for (number, Pair { dtypes, rows, columns, rate, named }) in pairs.into_iter().enumerate() {
            let before = weights(40 * columns, number as u64);
            let after = tuned(&before, rate, 99);
            let name = format!("t{number}");
            base.push(Tensor::new(if named { &name } else { "other" }, dtypes.0, &[rows.0, columns], &before));
            tuned_tensors.push(Tensor::new(&name, dtypes.1, &[rows.1, columns], &after));
        }
        base.reverse();
        base.dedup_by(|a, b| a.name == b.name);
        let options = Options { mode: if storage { Mode::Storage } else { Mode::Balanced }, chunk_size: chunk_size / 8 * 8 };
        let tuned = file(&tuned_tensors);
        let patch = round_trip(&tuned, &model(&[memory(&file(&base))]), &options);
        let alone = alone(&tuned, &options);
        // What a patch says about its base, and about each of its segments, is not for nothing.
        prop_assert!(patch.len() <= alone.len() + alone.len() / 1000 + 600, "{} bytes, {} alone", patch.len(), alone.len());
    }
}

/// A small patch of all that there is, and its base.
fn small_patch() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let before = weights(3000, 31);
    let after = tuned(&before, 0.002, 32);
    let base = file(&[
        Tensor::new("a", "BF16", &[20, 50], &before),
        Tensor::new("b", "F32", &[10, 10], &before),
        Tensor::new("c", "I32", &[40], &before),
    ]);
    let tuned = file(&[
        Tensor::new("a", "BF16", &[24, 50], &after),
        Tensor::new("b", "F32", &[10, 10], &after),
        Tensor::new("c", "I32", &[40], &before),
    ]);
    let patch = patch(&tuned, &model(&[memory(&base)]), &Options { chunk_size: 512, ..Options::default() });
    (patch, base, tuned)
}

#[test]
fn every_damaged_byte_of_a_patch_is_seen_and_gives_no_wrong_bytes() {
    let (patch, base, tuned) = small_patch();
    assert!(["delta", "unchanged"].iter().all(|codec| chunks_of(&patch, codec) > 0));
    let base = model(&[memory(&base)]);
    let hold = |damaged: Vec<u8>, what: &str| {
        let Ok(opened) = Container::from_store(Box::new(Memory::new(damaged))) else { return };
        let attached = match opened.base_record().map(|record| base.base_for(record, Check::Md5, &())) {
            Some(Ok(base)) => opened.with_base(base).unwrap(),
            Some(Err(_)) => return,
            None => opened,
        };
        assert!(!verify(&attached, &()).unwrap().is_sound(), "{what}: not seen");
        for number in 0..attached.grid().chunks() {
            let range = attached.grid().range(ChunkIndex(number));
            let mut chunk = vec![0; (range.end - range.start) as usize];
            if attached.decode_chunk(ChunkIndex(number), &mut chunk).is_ok() {
                assert!(tuned.get(range.start as usize..range.end as usize) == Some(&chunk[..]), "{what}: wrong bytes");
            }
        }
    };
    for at in 0..patch.len() {
        for value in [patch[at] ^ 1, patch[at] ^ 0x80, 0, 0xff] {
            if value != patch[at] {
                let mut damaged = patch.clone();
                damaged[at] = value;
                hold(damaged, &format!("byte {at} is {value}"));
            }
        }
    }
    for end in 0..patch.len() {
        hold(patch[..end].to_vec(), &format!("cut to {end}"));
    }
}

#[test]
fn a_base_that_is_cut_short_is_no_base() {
    let (patch, base, _) = small_patch();
    let opened = open(&patch);
    for end in [0, 5, 100, base.len() - 1] {
        // Its header says more than there is: it has no tensors then.
        let error =
            model(&[memory(&base[..end])]).base_for(opened.base_record().unwrap(), Check::Md5, &()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongBase, "{end}");
    }
}

#[test]
fn a_base_fits_only_the_patch_that_it_was_made_for() {
    let (patch, base, tuned) = small_patch();
    let other = file(&[Tensor::new("a", "BF16", &[20, 50], &weights(3000, 31))]);
    let model = model(&[memory(&base)]);
    let fits_other = model.base_for(open(&patch).base_record().unwrap(), Check::Md5, &()).unwrap();
    let mut second = Vec::new();
    compress_patch(&Memory::new(other.clone()), "x.safetensors", &Options::default(), &model, &mut second, &())
        .unwrap();
    assert_eq!(open(&second).with_base(fits_other.clone()).unwrap_err().kind(), ErrorKind::WrongBase);
    let ordinary = open(&alone(&tuned, &Options::default()));
    assert_eq!(ordinary.with_base(fits_other).unwrap_err().kind(), ErrorKind::InvalidArgument);
}
