"""Streamers of safetensors files, which read by many threads or queues and past the page cache: Run:ai Model Streamer by each of
its strategies, and fastsafetensors without a GPU. Every tensor is compared with the plain file."""

import os

from compare import apart, described, directories, forget, same_by_all, weight_files
from safetensors.torch import load_file

# What is in the environment decides how they read.
WAYS = {
    "runai io_uring_direct": {"RUNAI_STREAMER_FS_STRATEGY": "io_uring_direct"},
    "runai io_uring_buffered": {"RUNAI_STREAMER_FS_STRATEGY": "io_uring_buffered"},
    "runai libaio_direct": {"RUNAI_STREAMER_FS_STRATEGY": "libaio_direct"},
    "runai sync_buffered": {"RUNAI_STREAMER_FS_STRATEGY": "sync_buffered"},
    "fastsafetensors direct": {"FASTSAFETENSORS_ODIRECT": "1"},
    "fastsafetensors buffered": {"FASTSAFETENSORS_ODIRECT": "0"},
}


def runai(paths):
    from runai_model_streamer import SafetensorsStreamer

    with SafetensorsStreamer() as streamer:
        streamer.stream_files(paths, device="cpu")
        return described(streamer.get_tensors())


def fastsafetensors(paths):
    from fastsafetensors import SafeTensorsFileLoader

    loader = SafeTensorsFileLoader(None, device="cpu", nogds=True, bbuf_size_kb=1024)
    loader.add_filenames({0: paths})
    buffers = loader.copy_files_to_device()
    try:
        return described((name, buffers.get_tensor(name)) for name in loader.get_keys())
    finally:
        buffers.close()
        loader.close()


def stream(paths, way):
    os.environ |= WAYS[way]
    return (runai if way.startswith("runai") else fastsafetensors)(paths)


def main():
    plain, shown = directories()
    pairs = weight_files(plain, shown)
    wanted = described(item for path, _ in pairs for item in load_file(path).items())
    found = {}
    for way in WAYS:
        forget(shown)
        found[way] = apart(stream, [str(path) for _, path in pairs], way)
    same_by_all(f"the tensors of {shown}", dict.fromkeys(WAYS, wanted), found)
    print(f"streamers: {len(wanted)} tensors are the same by {', '.join(WAYS)}")


if __name__ == "__main__":
    main()
