"""The model, in plain PyTorch.

Two things make it fast on a CPU. The input half of the recurrence, by far the larger one, depends on the word alone,
but for its alignment, so it is computed once for each different word of a batch. And both directions advance together,
over the rows that still have words: padding costs nothing and cannot make a difference.
"""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdcli.api import UNKNOWN, Batch
from kdcli.models.embedding import Embedding, compared

warnings.filterwarnings("ignore", message="index_reduce")  # PyTorch calls it a beta

State = tuple[Tensor, ...]
"""What a cell passes to the next step, each ``[2, rows, hidden]``: (h, c) of an LSTM, (h,) of a GRU."""


class Packed(NamedTuple):
    """Texts by time step: first the first words of all texts, then the second words of those that have one, ..."""

    places: tuple[Tensor, Tensor]  # text and time of each word, [all words]; texts lie from the longest to the shortest
    counts: list[int]  # the number of texts that have a word at each step
    mirror: Tensor  # [all words], the place of the word as far from its text's end as this one is from its start
    restore: Tensor  # for each text as given, its place in the order of the packed ones


class BiRNN(nn.Module):
    """A bidirectional LSTM or GRU, pooled over time -> FC + ReLU -> FC (Tang et al. 2019, figures 1 and 2).

    The arguments are those of ``kd_bilstm.Options``. The two texts of a pair are encoded by the same recurrence and
    compared as [h1, h2, |h1 - h2|, h1 * h2]; with ``alignment``, each word knows how near the other text has it.
    """

    def __init__(
        self,
        embedding: Embedding,
        *,
        cell: str,
        hidden: int,
        layers: int,
        pooling: str,
        fc: int,
        dropout: float,
        alignment: bool,
        pair: bool,
        outputs: int,
    ) -> None:
        super().__init__()
        self.pooling, self.alignment = pooling, alignment
        self.embedding = embedding
        # It holds the parameters, in PyTorch's own layout and initialisation; its forward is not used.
        size = embedding.dimension + 2 * self.alignment
        self.rnn = (nn.LSTM if cell == "lstm" else nn.GRU)(size, hidden, layers, bidirectional=True)
        self.fc = nn.Linear(2 * hidden * (4 if pair else 1), fc)
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Linear(fc, outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits, ``[batch, outputs]``."""
        longest = max(words.shape[1] for words in batch.words)
        words = torch.cat([functional.pad(words, (0, longest - words.shape[1])) for words in batch.words])
        lengths = torch.cat(batch.lengths)
        aligned = self.align(words, lengths) if self.alignment else None
        states = compared(self.encode(words, lengths, aligned).chunk(len(batch.words)))
        hidden = self.dropout(functional.relu(self.fc(states)))  # [batch, fc]
        logits: Tensor = self.logits(hidden)
        return logits

    @torch.no_grad()
    def align(self, words: Tensor, lengths: Tensor) -> Tensor:
        """Return two inputs of each word of pairs, ``[2 * pairs, time, 2]``.

        They are the largest cosine with a word of the other text, at least 0, and whether that text has the word. The
        cosine is that of the vectors, all channels side by side. ``MASK`` is like no word, not even itself.
        """
        inside = (torch.arange(words.shape[1]) < lengths[:, None]).to(words.device)
        real = torch.where(inside & (words != UNKNOWN), words, -1)
        used, places = torch.unique(real, return_inverse=True)
        vectors = functional.normalize(torch.cat(self.embedding(used.clamp(min=0)), dim=-1), dim=-1)
        one, two = functional.embedding(places, vectors * (used >= 0)[:, None]).chunk(2)
        rows, columns = real.chunk(2)
        same = (rows[:, :, None] == columns[:, None]) & (rows >= 0)[:, :, None]
        likeness = torch.stack([one @ two.transpose(1, 2), same.to(one.dtype)], dim=-1)  # [pairs, time, time, 2]
        return torch.cat([likeness.amax(dim=2), likeness.amax(dim=1)]).clamp(min=0)

    def encode(self, words: Tensor, lengths: Tensor, aligned: Tensor | None) -> Tensor:
        """Return the last layer's hidden states of both directions, pooled over time, ``[texts, 2 * hidden]``."""
        packed = pack(lengths, words.device)
        vocabulary, places = torch.unique(words[packed.places], return_inverse=True)
        aligned = None if aligned is None else aligned[packed.places]
        outputs = self.recur(self.embedding(vocabulary), places, packed, 0, aligned)  # [2, all words, hidden]
        for layer in range(1, self.rnn.num_layers):
            both = torch.cat([outputs[0], outputs[1][packed.mirror]], dim=-1)
            outputs = self.recur([self.dropout(both)], torch.arange(len(both), device=both.device), packed, layer)
        last = packed.mirror[: len(lengths)]  # the mirror of a first word is the last one
        pooled = outputs[:, last] if self.pooling == "last" else maximum(outputs, packed.counts)
        return torch.cat([pooled[0], pooled[1]], dim=-1)[packed.restore]

    def recur(
        self, channels: list[Tensor], places: Tensor, packed: Packed, layer: int, aligned: Tensor | None = None
    ) -> Tensor:
        """Run one layer over packed texts, the second direction from each text's own end.

        ``channels`` are the different inputs, ``[inputs, size]`` each, and ``places`` tells which of them each packed
        word takes; ``aligned``, ``[all words, 2]``, are further inputs of each. Returns hidden states, ``[2, all words,
        hidden]``; the second direction has last words first.
        """
        is_lstm = isinstance(self.rnn, nn.LSTM)
        weight_ih, weight_hh, bias_ih, bias_hh = (
            torch.stack([getattr(self.rnn, f"{name}_l{layer}{direction}") for direction in ("", "_reverse")])
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        gates = (bias_ih + bias_hh if is_lstm else bias_ih).flatten()
        sizes = [channel.shape[1] for channel in channels]
        if aligned is not None:
            weight_ih, weight_aligned = torch.split(weight_ih, [sum(sizes), 2], dim=2)
        # Apart, so that no gradient is computed for a frozen channel.
        for channel, weight in zip(channels, torch.split(weight_ih.flatten(0, 1), sizes, dim=1), strict=True):
            gates = torch.addmm(gates, channel, weight.t())  # [inputs, 2 * gates * hidden]
        rows = torch.stack([2 * places, 2 * places[packed.mirror] + 1])
        inputs = functional.embedding(rows, gates.view(2 * len(gates), -1))
        if aligned is not None:
            both = torch.stack([aligned, aligned[packed.mirror]])
            inputs = torch.baddbmm(inputs, both, weight_aligned.transpose(1, 2))
        steps = torch.split(inputs, packed.counts, dim=1)
        recurrent = weight_hh.transpose(1, 2)
        state: State = (gates.new_zeros(2, packed.counts[0], self.rnn.hidden_size),) * (2 if is_lstm else 1)
        outputs = []
        for step in steps:  # [2, rows that have a word here, gates * hidden]
            state = tuple(part[:, : step.shape[1]] for part in state)
            state = lstm(step, state, recurrent) if is_lstm else gru(step, state, recurrent, bias_hh[:, None])
            outputs.append(state[0])
        return torch.cat(outputs, dim=1)


def pack(lengths: Tensor, device: torch.device) -> Packed:
    """Pack texts of the given lengths, ``[texts]`` on the CPU."""
    lengths, order = lengths.sort(descending=True, stable=True)
    present = torch.arange(int(lengths[0]))[:, None] < lengths  # [time, texts]
    counts = present.sum(dim=1)
    time, text = present.nonzero(as_tuple=True)
    mirror = (counts.cumsum(0) - counts)[lengths[text] - 1 - time] + text
    places = order[text].to(device), time.to(device)
    return Packed(places, counts.tolist(), mirror.to(device), order.argsort().to(device))


def lstm(inputs: Tensor, state: State, weight: Tensor) -> State:
    """Take a step of an LSTM in both directions.

    ``inputs`` is the input's part of the gates, biases included, ``[2, rows, 4 * hidden]``, ``state`` is h and c, and
    ``weight`` is ``[2, hidden, 4 * hidden]``.
    """
    hidden, memory = state
    enter, keep, new, leave = torch.baddbmm(inputs, hidden, weight).chunk(4, dim=-1)
    memory = torch.sigmoid(keep) * memory + torch.sigmoid(enter) * torch.tanh(new)
    return torch.sigmoid(leave) * torch.tanh(memory), memory


def gru(inputs: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
    """Take a step of a GRU in both directions; as ``lstm``, with three gates.

    The recurrent bias, ``[2, 1, 3 * hidden]``, is apart because the reset gate scales a third of it.
    """
    (hidden,) = state
    reset_input, update_input, new_input = inputs.chunk(3, dim=-1)
    reset, update, new = torch.baddbmm(bias, hidden, weight).chunk(3, dim=-1)
    new = torch.tanh(new_input + torch.sigmoid(reset_input + reset) * new)
    return (torch.lerp(new, hidden, torch.sigmoid(update_input + update)),)


def maximum(outputs: Tensor, counts: list[int]) -> Tensor:
    """Return the largest value of each unit over each text's words, ``[2, texts, hidden]``, in the packed order."""
    texts = torch.cat([torch.arange(count) for count in counts]).to(outputs.device)
    lowest = outputs.new_full((2, counts[0], outputs.shape[2]), -torch.inf)
    return lowest.index_reduce(1, texts, outputs, "amax")
