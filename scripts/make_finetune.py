"""Fine-tunes of MiniLM to make patches of: python make_finetune.py DATA OUT [KIND...]

DATA is the folder that make_test_data.py filled. OUT gets `base`, and beside it those that are asked for, or all: `short` (tuned until 38 % of
the weights in BF16 have changed), `long` (50 %) and `lora` (low-rank changes of all matrices of the encoder, merged), each with a
model.safetensors in BF16. `long` takes some 700 steps, a quarter of an hour on two cores.

The task is a toy: lines of Python's own library that follow one another are to have similar embeddings. Masters are kept in F32, as
is usual, and rounded at the end.
"""

import argparse
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

BATCH, LENGTH = 24, 48


def lines():
    """Lines of some length from Python's own library, always the same ones for one version of it."""
    for path in sorted(pathlib.Path(argparse.__file__).parent.glob("*.py")):
        for line in path.read_text(errors="replace").splitlines():
            if len(line.strip()) > 25:
                yield line.strip()


def rounded(model, base):
    """The weights of `model` as those of `base` are stored; what is no weight is as there."""
    state = model.state_dict()
    return {name: state[name].to(old.dtype) if name in state else old for name, old in base.items()}


def changed(before, after):
    different = sum((after[name] != before[name]).sum().item() for name in before)
    return different / sum(tensor.numel() for tensor in before.values())


class LowRank(torch.nn.Module):
    """A linear layer with a low-rank change beside it."""

    def __init__(self, linear, rank=8):
        super().__init__()
        self.linear = linear
        self.down = torch.nn.Parameter(torch.randn(rank, linear.in_features) * 0.02)
        self.up = torch.nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x):
        return self.linear(x) + 2 * (x @ self.down.T @ self.up.T)


def steps(model, tokenizer, parameters, rate):
    """Trains for ever; yields after every step."""
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    text = list(lines())
    generator = torch.Generator().manual_seed(1)
    while True:
        at = torch.randint(len(text) - 1, (BATCH,), generator=generator).tolist()
        sides = []
        for shift in (0, 1):
            tokens = tokenizer(
                [text[i + shift] for i in at], padding=True, truncation=True, max_length=LENGTH, return_tensors="pt"
            )
            hidden = model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1)
            sides.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
        loss = torch.nn.functional.cross_entropy(20 * sides[0] @ sides[1].T, torch.arange(BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def save(out, name, source, tensors):
    folder = out / name
    shutil.copytree(source, folder, dirs_exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def tune(source, base, tokenizer, rate, targets):
    """Gives each of these targets, kinds with the part of the weights that is to have changed, when it is reached."""
    model = AutoModel.from_pretrained(source, dtype=torch.float32)
    for number, loss in enumerate(steps(model, tokenizer, model.parameters(), rate), 1):
        tuned = rounded(model, base)
        fraction = changed(base, tuned)
        if number % 10 == 0:
            print(f"step {number}: loss {loss:.3f}, {fraction:.1%} changed", flush=True)
        while targets and fraction >= targets[0][1]:
            print(f"{targets[0][0]}: {number} steps", flush=True)
            yield targets.pop(0)[0], tuned
        if not targets:
            return


def tune_low_rank(source, base, tokenizer, rate=5e-4, number_of_steps=60):
    """The weights with low-rank changes merged into all matrices of the encoder."""
    model = AutoModel.from_pretrained(source, dtype=torch.float32)
    model.requires_grad_(False)
    layers = [
        (parent, key)
        for parent in model.encoder.modules()
        for key, child in parent.named_children()
        if isinstance(child, torch.nn.Linear)
    ]
    for parent, key in layers:
        setattr(parent, key, LowRank(getattr(parent, key)))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for number, _ in enumerate(steps(model, tokenizer, trained, rate), 1):
        if number == number_of_steps:
            break
    with torch.no_grad():
        for parent, key in layers:
            layer = getattr(parent, key)
            layer.linear.weight += 2 * layer.up @ layer.down
            setattr(parent, key, layer.linear)
    return rounded(model, base)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("kinds", nargs="*", default=["short", "long", "lora"], metavar="KIND")
    parser.add_argument("--rate", type=float, default=2e-5)
    args = parser.parse_args()
    torch.manual_seed(0)
    source, rounded_source = args.data / "minilm-f32", args.data / "minilm-bf16"
    base = load_file(rounded_source / "model.safetensors")
    tokenizer = AutoTokenizer.from_pretrained(source)
    save(args.out, "base", rounded_source, base)
    targets = [target for target in (("short", 0.38), ("long", 0.50)) if target[0] in args.kinds]
    tuned = list(tune(source, base, tokenizer, args.rate, targets)) if targets else []
    if "lora" in args.kinds:
        tuned.append(("lora", tune_low_rank(source, base, tokenizer)))
    for kind, tensors in tuned:
        save(args.out, kind, rounded_source, tensors)
        print(f"{kind}: {changed(base, tensors):.1%} changed", flush=True)


if __name__ == "__main__":
    main()
