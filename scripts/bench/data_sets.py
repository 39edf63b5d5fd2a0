"""The files that are measured, as scripts/test-data.sh makes them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSet:
    """A folder of data/ with one file of weights."""

    folder: str
    title: str
    # Of nearly all of its elements.
    dtype: str
    name: str = "model.safetensors"

    def file(self, data):
        return data / self.folder / self.name


LARGE = DataSet("large-bf16", "1.2 GB BF16", "BF16")

DATA_SETS = [
    DataSet("minilm-bf16", "MiniLM BF16", "BF16"),
    DataSet("crepe-bf16", "conv net BF16", "BF16"),
    DataSet("minilm-f32", "MiniLM F32", "F32"),
    DataSet("crepe-f32", "conv net F32", "F32"),
    DataSet("minilm-bf16-in-f32", "BF16 stored in F32", "F32"),
    DataSet("minilm-f16", "MiniLM F16", "F16"),
    DataSet("wordllama-f16", "WordLlama F16", "F16"),
    DataSet("minilm-fp8", "MiniLM F8_E4M3", "F8_E4M3"),
    DataSet("minilm-e5m2", "MiniLM F8_E5M2", "F8_E5M2"),
    DataSet("minilm-i8", "MiniLM I8", "I8"),
    LARGE,
]

# Files of llama.cpp, of one model: peers other than lmz know nothing of them.
GGUF = [
    DataSet(f"llama-{kind.lower()}", f"GGUF {kind}", kind, "model.gguf")
    for kind in ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K", "IQ4_XS")
]

# What --quick looks at.
SMALL = DATA_SETS[:1]
