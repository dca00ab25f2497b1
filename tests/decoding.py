"""What a language model says of texts, one text and one token at a time, as a plain loop computes it."""

import math

import torch

LENGTH = 24


def loud(model, factor=6.0):
    """Make the weights of a random model so great that places and other words matter."""
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.mul_(factor)
    return model.eval()


def random_texts(rows, words, seed):
    return torch.randint(1, words, (rows, LENGTH), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def check_rows(decoder, read, alone, words, tolerance=1e-5):
    """Let rows begin new texts at different steps and be left out; ``read`` must return what ``alone`` does.

    ``read(tokens, positions, width)`` reads a token of each row with the decoder; ``alone(text)`` reads a whole text.
    """
    old, new = random_texts(4, words, seed=1), random_texts(4, words, seed=2)
    expected = {id(texts): [alone(text) for text in texts] for texts in (old, new)}
    spread = float(torch.stack(expected[id(new)]).std())
    decoder.open(4, LENGTH)
    rows = torch.arange(4)
    texts, places, begun = [old] * 4, torch.zeros(4, dtype=torch.int64), [LENGTH, 3, 9, 16]
    seen = 0
    for step in range(LENGTH + 9):
        for number, row in enumerate(rows.tolist()):
            if step == begun[row] or places[number] == LENGTH:  # its old text has ended, and a new one takes its place
                texts[row], places[number] = new, 0
        tokens = torch.stack([texts[row][row, place] for row, place in zip(rows, places, strict=True)])
        width = min(int(places.max()) + 1 + step % 3, LENGTH)
        found = read(tokens, places, width)
        for number, row in enumerate(rows.tolist()):
            wanted = expected[id(texts[row])][row][places[number]]
            torch.testing.assert_close(found[number], wanted, atol=tolerance * max(spread, 1), rtol=tolerance)
            seen += texts[row] is new
        places = places + 1
        if step == LENGTH:  # two of the rows alone
            kept = torch.tensor([3, 1])
            decoder.keep(kept)
            rows, places = rows[kept], places[kept]
    assert seen > LENGTH and spread > 0.3


@torch.no_grad()
def nats_one_by_one(model, tokens):
    """Compute the nats of all tokens but the first from the logits of what stands before each."""
    total = 0.0
    for place in range(1, len(tokens)):
        total -= math.log(model(torch.tensor([tokens[:place]])).logits[0, -1].double().softmax(-1)[tokens[place]])
    return total
