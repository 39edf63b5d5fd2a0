"""AutoModel.from_pretrained("org/name") from a cache of the Hub: `hub.py PLAIN HUB`, HUB holding the model org/name."""

import os
from pathlib import Path

from compare import directories, same, same_tensor

plain, hub = directories()
os.environ["HF_HUB_CACHE"] = str(hub)
os.environ["HF_HUB_OFFLINE"] = "1"

from transformers import AutoModel, AutoTokenizer, logging  # noqa: E402: they read the environment when imported

logging.set_verbosity_error()
logging.disable_progress_bar()
wanted = AutoModel.from_pretrained(plain, dtype="auto").state_dict()
there = AutoModel.from_pretrained("org/name", dtype="auto").state_dict()
same("the names of the weights", list(wanted), list(there))
for name in wanted:
    same_tensor(name, wanted[name], there[name])
same("the vocabulary", AutoTokenizer.from_pretrained(plain).get_vocab(), AutoTokenizer.from_pretrained("org/name").get_vocab())
assert not Path(hub, "version.txt").exists(), "nothing is written to a cache that is mounted"
print(f'from_pretrained("org/name"): {len(wanted)} weights are the same')
