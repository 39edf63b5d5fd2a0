//! What the codec promises for any tensor: never markedly larger than Zstandard makes it, never more than a trifle larger
//! than it is, in each mode; and it comes back.

#[path = "support/special.rs"]
mod special;

use std::collections::BTreeSet;

use bigsmall_codec::container::{Mode, Options, compress};
use bigsmall_codec::{Container, Memory, Original};
use special::{inputs, made_up_weights};

/// Bytes of a container that are not for its chunks: the frame, the index, the tables.
const FIXED: usize = 1536;

#[test]
fn never_markedly_larger_than_zstandard_and_never_much_larger_than_the_original() {
    let mut codecs = BTreeSet::new();
    for input in inputs(&made_up_weights(1000, 1)) {
        let file = input.file();
        let zstd = zstd::bulk::compress(&file, 3).unwrap().len();
        for mode in [Mode::Balanced, Mode::Inference, Mode::Storage] {
            let mut container = Vec::new();
            let options = Options { mode, chunk_size: mode.chunk_size() };
            compress(&Memory::new(file.clone()), "model.safetensors", &options, &mut container, &()).unwrap();
            let (len, name) = (container.len(), format!("{} {} in {mode:?}", input.dtype, input.name));
            // Zstandard has the file in one piece. Chunks are made longer for what repeats only if that brings half a percent.
            assert!(len <= zstd + zstd / 200 + FIXED, "{name}: {len} bytes, {zstd} with Zstandard");
            assert!(len <= file.len() + file.len() / 1000 + FIXED, "{name}: {len} bytes of {}", file.len());
            let container = Container::from_store(Box::new(Memory::new(container))).unwrap();
            let mut out = vec![0; file.len()];
            container.read_at(0, &mut out).unwrap();
            assert!(out == file, "{name} did not come back");
            codecs.extend(container.codec_usage().iter().map(|usage| usage.codec.name()));
        }
    }
    // All there are have a part in it.
    let all = ["bytes", "constant", "differences", "float", "packed", "palette", "raw", "scaled", "sparse", "zstd"];
    assert_eq!(codecs.into_iter().collect::<Vec<_>>(), all);
}
