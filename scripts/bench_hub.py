"""How fast bigsmall pulls and pushes, against huggingface_hub with the same Hub on this machine, in turns.

    bench_hub.py BIGSMALL LOCAL_HUB     two binaries: the release one, and the example local-hub

Prints the median of the times and the ratio of the speeds. Both clients talk plain HTTP, so Xet is off; Python's is timed without its start.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHARDS, BYTES, RUNS = 4, 100_000_000, 5
bigsmall, local_hub = (str(Path(path).resolve()) for path in sys.argv[1:3])
hub = subprocess.Popen([local_hub], stdout=subprocess.PIPE, text=True)
try:
    for pair in hub.stdout.readline().split()[1:]:
        name, value = pair.split("=", 1)
        os.environ[name] = value
    os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    scratch = Path(tempfile.mkdtemp(prefix="bigsmall-bench-hub-"))
    os.environ["HF_HOME"] = str(scratch / "hf")
    from huggingface_hub import HfApi

    api = HfApi()

    def timed(action):
        start = time.perf_counter()
        action()
        return time.perf_counter() - start

    def run(*arguments):
        subprocess.run([bigsmall, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)

    def model(to):
        """Shards of bytes that nothing makes smaller, so that both send and fetch the same, and new ones each time."""
        to.mkdir()
        header = json.dumps({"t": {"dtype": "U8", "shape": [BYTES], "data_offsets": [0, BYTES]}}).encode()
        for shard in range(SHARDS):
            contents = len(header).to_bytes(8, "little") + header + os.urandom(BYTES)
            (to / f"{shard}.safetensors").write_bytes(contents)

    times = {"push": ([], []), "pull": ([], [])}
    for number in range(RUNS):
        for who in (0, 1) if number % 2 else (1, 0):
            repo = f"me/run-{number}-{who}"
            model(scratch / "model")
            run("compress", "--quiet", scratch / "model", "-o", scratch / "packed")
            if who == 0:
                api.create_repo(repo)
                push = timed(lambda: api.upload_folder(repo_id=repo, folder_path=scratch / "packed"))
                pull = timed(lambda: api.snapshot_download(repo, local_dir=scratch / "pulled"))
            else:
                push = timed(lambda: run("push", "--quiet", scratch / "packed", repo))
                pull = timed(lambda: run("pull", "--quiet", repo, scratch / "pulled"))
            times["push"][who].append(push)
            times["pull"][who].append(pull)
            for name in ("model", "packed", "pulled"):
                shutil.rmtree(scratch / name)
    for what, (python, ours) in times.items():
        python, ours = statistics.median(python), statistics.median(ours)
        size = SHARDS * BYTES / 1e6
        print(f"{what} of {size:.0f} MB: huggingface_hub {python:.2f} s, bigsmall {ours:.2f} s, {python / ours:.2f} times as fast")
finally:
    hub.kill()
    shutil.rmtree(scratch, ignore_errors=True)
