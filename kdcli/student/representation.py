"""The teacher's representation of a text as a further thing to learn."""

from __future__ import annotations

from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kdcli.errors import DataError, ProfileError

_SAMPLE = 20_000
"""The rows by which the values are standardised: enough, and no matter how many there are."""


class Representation(nn.Module):
    """A layer that predicts the teacher's representation from what the student's layer ``logits`` reads.

    Its loss is in units of the variance of the teacher's logits, so that one weight suits teachers of any scale. It
    serves the training alone (Mukherjee and Hassan Awadallah 2019, section 4.2, where it is a stage of its own).

    Raises:
        DataError: There are no representations.
        ProfileError: The student has no linear layer of that name.
    """

    def __init__(self, module: nn.Module, states: NDArray[np.float16] | None, logits: NDArray[np.float32]) -> None:
        super().__init__()
        key, last = "student.repr_weight", getattr(module, "logits", None)
        if states is None:
            hint = "export and join the logits again with this setting, or set it to 0"
            raise DataError("the joined set has no representations of the teacher", key=key, hint=hint)
        if not isinstance(last, nn.Linear):
            raise ProfileError(
                "this student has no linear layer `logits` to learn them by", key=key, hint="set it to 0"
            )
        every = ceil(len(states) / _SAMPLE)
        sample = torch.from_numpy(states[::every].astype(np.float32))
        self.scale = float(logits[::every].var(axis=0).mean())
        # Parameters, so that they move to the device with the rest.
        self.mean = nn.Parameter(sample.mean(dim=0), requires_grad=False)
        self.spread = nn.Parameter(sample.std(dim=0, correction=0).clamp(min=1e-6), requires_grad=False)
        self.predict = nn.Linear(last.in_features, states.shape[1])
        last.register_forward_pre_hook(self._keep)

    def _keep(self, layer: nn.Module, inputs: tuple[Tensor]) -> None:
        self.read = inputs[0]

    def loss(self, states: Tensor) -> Tensor:
        """Return the mean squared error of the last batch's standardised representations, times that variance."""
        wanted = (states - self.mean) / self.spread
        return self.scale * nn.functional.mse_loss(self.predict(self.read.float()), wanted)
