"""Sixteen processes that load a model at once: `parallel.py PLAIN SHOWN`. HF_ENABLE_PARALLEL_LOADING=true makes each load
its shards with several threads."""

import multiprocessing

from compare import DIFFERENT, different, directories, same_tensor
from transformers import AutoModel, logging

PROCESSES = 16


def load(wanted, shown):
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    there = AutoModel.from_pretrained(shown, dtype="auto").state_dict()
    for name, tensor in wanted.items():
        same_tensor(name, tensor, there[name])


def main():
    logging.disable_progress_bar()
    plain, shown = directories()
    wanted = AutoModel.from_pretrained(plain, dtype="auto").state_dict()
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=load, args=(wanted, shown)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    codes = [process.exitcode for process in processes]
    if DIFFERENT in codes:
        different(f"what some of {PROCESSES} processes loaded")
    assert not any(codes), f"processes crashed: exit codes {codes}"
    print(f"{PROCESSES} processes loaded {len(wanted)} weights at once: all the same")


main()
