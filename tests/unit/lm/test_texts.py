import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcli.lm.texts import IGNORED, TokenTexts

TEXTS = ["a good film about a bad dog", "naïve — 你好 🙂", "x", "it\twas  dull ", "the <|endoftext|> is near"]
LONG = 10_000


def tokens_of(made):
    return np.split(made.tokens, made.rows.offsets[1:-1])


@pytest.mark.parametrize("seed", [None, 3])
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), min_size=1))
def test_tokens_are_those_of_the_text_and_an_end(tokenizer, texts, seed):
    made = TokenTexts(texts, tokenizer, LONG, seed)
    rows = [row.tolist() for row in tokens_of(made)]
    assert [tokenizer.decode(row[:-1]) for row in rows] == texts
    assert all(row[-1] == tokenizer.eos_token_id and tokenizer.eos_token_id not in row[:-1] for row in rows)
    assert made.rows.lengths.tolist() == list(map(len, rows)) and len(made.rows) == len(texts)
    assert made.whole.all() and made.read() == texts


def test_each_epoch_cuts_elsewhere_and_each_run_in_the_same_places(tokenizer):
    def epochs(seed, order=(0, 1, 2)):
        made = TokenTexts(TEXTS * 5, tokenizer, LONG, seed)
        found = {}
        for epoch in order:
            made.start(epoch)
            found[epoch] = made.tokens.tolist()
        return found

    first = epochs(1)
    assert first == epochs(1, (2, 0, 1)) and first != epochs(2)
    whole = TokenTexts(TEXTS * 5, tokenizer, LONG).tokens.tolist()
    assert len({str(tokens) for tokens in [*first.values(), whole]}) == 4
    assert TokenTexts(TEXTS * 5, tokenizer, LONG, 1).tokens.tolist() == first[0], "it begins with epoch 0"


def test_cuts_are_at_random_characters_and_pieces_are_encoded_for_themselves(tokenizer):
    text = "the plot is very dull"
    made = TokenTexts([text] * 3000, tokenizer, LONG, 7)
    plain = TokenTexts([text], tokenizer, LONG).tokens.tolist()

    def pieces(place):
        encoded = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in (text[:place], text[place:])]
        return (*encoded[0], *encoded[1], tokenizer.eos_token_id)

    possible = {pieces(place) for place in range(len(text))}
    found = {tuple(row.tolist()) for row in tokens_of(made)}
    assert found == possible and tuple(plain) in possible and len(possible) > 5
    share = np.mean([row.tolist() == plain for row in tokens_of(made)])
    expected = np.mean([list(pieces(place)) == plain for place in range(len(text))])
    assert share == pytest.approx(expected, abs=0.05)


def test_the_first_token_is_given_and_padding_does_not_count(tokenizer):
    made = TokenTexts(TEXTS, tokenizer, LONG)
    batch = {name: values.numpy() for name, values in made.rows.batch([0, 2]).items()}
    longest, short = made.rows.lengths[[0, 2]]
    assert batch["input_ids"].shape == (2, longest) and short == 2 < longest
    assert batch["attention_mask"].sum(1).tolist() == [longest, short]
    assert batch["labels"][:, 0].tolist() == [IGNORED] * 2
    assert (batch["labels"][0, 1:] == batch["input_ids"][0, 1:]).all()
    assert batch["labels"][1, 1:].tolist() == [tokenizer.eos_token_id] + [IGNORED] * (longest - 2)
    assert made.tokens[made.rows.offsets[:-1]].tolist() == [row[0] for row in tokens_of(made)]


def test_a_text_that_is_too_long_has_no_end(tokenizer):
    text = TEXTS[0]
    encoded = tokenizer(text)["input_ids"]
    fits = len(encoded) + 1
    made = TokenTexts([text, "x"], tokenizer, fits)
    assert made.whole.all() and made.rows.lengths.tolist() == [fits, 2]

    made = TokenTexts([text, "x"], tokenizer, fits - 1)
    assert made.whole.tolist() == [False, True] and made.rows.lengths.tolist() == [fits - 1, 2]
    assert tokens_of(made)[0].tolist() == encoded, "all of it, and no end"
    made = TokenTexts([text, "x"], tokenizer, 4)
    assert made.read() == [tokenizer.decode(encoded[:4]), "x"] and text.startswith(made.read()[0])


def test_no_text_is_cut_where_a_space_would_come_into_the_cut(spaced_tokenizer):
    texts = ["the plot is dull", "a dog"]
    pieces = [spaced_tokenizer(part)["input_ids"] for part in ("pl", "ot")]
    assert spaced_tokenizer.decode(pieces[0] + pieces[1]) == "pl ot"

    made = TokenTexts(texts, spaced_tokenizer, LONG, seed=1)
    assert made.seed is None
    assert made.tokens.tolist() == TokenTexts(texts, spaced_tokenizer, LONG).tokens.tolist()
    assert [spaced_tokenizer.decode(row[:-1]) for row in tokens_of(made)] == texts
