"""accelerate's disk offload: a model runs whose weights stay in the files, read layer by layer when their turn comes."""

import tempfile

import torch
from accelerate import dispatch_model
from compare import directories, same_tensor, weight_files
from safetensors import safe_open
from transformers import AutoModel, AutoTokenizer, logging

SENTENCES = ["No layer stays in memory.", "Each is read from the mount when its turn comes."]


def offload_index(files):
    """Where each weight is: accelerate reads it there and makes no copy of its own."""
    index = {}
    for file in files:
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():
                dtype = str(weights.get_tensor(name).dtype).removeprefix("torch.")
                index[name] = {"safetensors_file": str(file), "weight_name": name, "dtype": dtype}
    return index


def hidden_states(model, tokenizer):
    tokens = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**tokens).last_hidden_state


def main():
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    plain, shown = directories()
    tokenizer = AutoTokenizer.from_pretrained(plain)
    model = AutoModel.from_pretrained(plain, dtype="auto").eval()
    wanted = hidden_states(model, tokenizer)
    assert torch.isfinite(wanted).all()

    index = offload_index(shown_file for _, shown_file in weight_files(plain, shown))
    # Whatever did not come from the files would be seen.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    with tempfile.TemporaryDirectory() as folder:
        device_map = {name: "disk" for name, _ in model.named_children()}
        model = dispatch_model(model, device_map, main_device="cpu", offload_dir=folder, offload_index=index)
        assert all(parameter.device.type == "meta" for parameter in model.parameters()), "a weight stayed in memory"
        same_tensor("the hidden states", wanted, hidden_states(model, tokenizer))
    print(f"disk offload: {len(index)} weights were read where they are, and the result is the same")


main()
