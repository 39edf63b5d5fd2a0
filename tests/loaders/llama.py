"""llama.cpp: loads each model, mapped into memory and not, and compares what it says, bit by bit. `gguf-dump` and a reader of
tensors too. A model that is split into several files is loaded by the name of the first."""

import hashlib
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy
from compare import different, directories, same
from gguf import GGUFReader
from llama_cpp import Llama

TOKENS = 12
PROMPT = b"Once upon a time"

# Models that are mapped and generate at once, each by its own thread of this process.
AT_ONCE = 4


def says(path, mapped):
    """The tokens that a model generates, the most likely ones, and a hash of the logits that it chose the last one by."""
    model = Llama(str(path), n_ctx=64, use_mmap=mapped, n_threads=2, logits_all=True, verbose=False)
    tokens = model.tokenize(PROMPT)
    said = []
    for token in model.generate(tokens, temp=0.0, top_k=1):
        said.append(int(token))
        if len(said) == TOKENS:
            break
    logits = numpy.array(model.scores[: model.n_tokens])
    if not numpy.isfinite(logits).all():
        sys.exit(f"{path}: the model computes no numbers, so nothing would be compared")
    model.close()
    return said, hashlib.sha256(logits.tobytes()).hexdigest()


def dump(path):
    """What gguf-dump prints, but for the name of the file."""
    tool = Path(sys.executable).with_name("gguf-dump")
    done = subprocess.run([tool, path], capture_output=True, text=True, check=True)
    return done.stdout.replace(str(path), "")


def tensors(path):
    reader = GGUFReader(path)
    return {t.name: (t.tensor_type, t.shape.tolist(), hashlib.md5(t.data.tobytes()).hexdigest()) for t in reader.tensors}


def is_further_part(path):
    """Whether it is a file of a split model, and not the first one, which llama.cpp is given."""
    part = re.search(r"-(\d{5})-of-\d{5}\.gguf$", path.name)
    return part is not None and int(part[1]) > 1


def forget(path):
    """Makes the kernel read all files of the folder anew, as far as nobody has them mapped."""
    for file in path.parent.glob("*.gguf"):
        with open(file, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def at_once(path, wanted):
    results = [None] * AT_ONCE

    def load(number):
        results[number] = says(path, True)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        same(f"what {path} says to one of {AT_ONCE} who map it at once", wanted, result)


def main():
    plain, shown = directories()
    wanted = sorted(p.relative_to(plain) for p in plain.rglob("*.gguf"))
    same(f"the models in {shown}", wanted, sorted(p.relative_to(shown) for p in shown.rglob("*.gguf")))
    if not wanted:
        different(f"{plain} holds no models, so nothing would be compared")
    for name in wanted:
        same(f"what gguf-dump prints of {name}", dump(plain / name), dump(shown / name))
        same(f"the tensors of {name}", tensors(plain / name), tensors(shown / name))
        if is_further_part(name):
            continue
        said = says(plain / name, True)
        for mapped in (True, False):
            forget(shown / name)
            same(f"what {name} says, {'mapped' if mapped else 'read'}", said, says(shown / name, mapped))
        forget(shown / name)
        at_once(shown / name, said)


if __name__ == "__main__":
    main()
