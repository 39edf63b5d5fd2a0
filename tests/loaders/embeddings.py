"""transformers.AutoModel.from_pretrained: the embeddings of some sentences, and every weight of the loaded model."""

import torch
from compare import bits, directories, same, same_tensor
from transformers import AutoModel, AutoTokenizer, logging

SENTENCES = [
    "A file of weights is stored a third smaller.",
    "The mount shows it as the original, byte for byte.",
    "Nothing is said of the weather in this sentence; it is only longer than the others are, and has a semicolon.",
    "naïve café — 東京",
    "",
]


def load(directory):
    """The model and the embeddings of the sentences: mean over the tokens, as this model is meant to be used."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModel.from_pretrained(directory, dtype="auto").eval()
    tokens = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    return model, (hidden * mask).sum(1) / mask.sum(1)


def main():
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    plain, shown = directories()
    (plain_model, plain_embeddings), (shown_model, shown_embeddings) = load(plain), load(shown)

    # Embeddings that are all alike or not finite would be equal however wrong the weights were.
    assert torch.isfinite(plain_embeddings).all()
    assert len({bits(row).numpy().tobytes() for row in plain_embeddings}) == len(SENTENCES)

    same_tensor("the embeddings", plain_embeddings, shown_embeddings)
    plain_state, shown_state = plain_model.state_dict(), shown_model.state_dict()
    same("the names of the weights", list(plain_state), list(shown_state))
    for name in plain_state:
        same_tensor(name, plain_state[name], shown_state[name])
    print(f"from_pretrained: {len(plain_state)} weights and {len(SENTENCES)} embeddings are the same")


main()
