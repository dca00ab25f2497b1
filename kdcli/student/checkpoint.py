"""Where a stopped training goes on: the position, the weights, the optimiser and the random state, in one file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from kdcli.api import Reporter
from kdcli.files import atomic

FILE = "checkpoint.safetensors"


@dataclass
class Position:
    """Where a training stands, as JSON values."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of this epoch
    updates: int = 0
    rows: int = 0
    loss: float = 0.0  # the sum of the losses since the last evaluation
    losses: int = 0  # their number
    stale: int = 0  # evaluations since the best
    best: dict[str, float] = field(default_factory=dict)  # the best dev metrics, empty before the first evaluation
    best_update: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def count(self, rows: int, loss: float) -> None:
        """Count an update."""
        self.batch += 1
        self.updates += 1
        self.rows += rows
        self.loss += loss
        self.losses += 1


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in weights.items()}


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint of one training."""

    folder: Path
    module: nn.Module
    optimizer: Optimizer

    @property
    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def save(self, best: Mapping[str, Tensor], position: Position) -> None:
        """Write the model, the optimiser, the random state, the best model so far and the position."""
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            random["cuda"] = torch.cuda.get_rng_state()
        state = {
            f"{number}.{name}": value
            for number, parameter in enumerate(self._parameters)
            for name, value in self.optimizer.state.get(parameter, {}).items()
        }
        groups = {"model": self.module.state_dict(), "best": best, "optimizer": state, "random": random}
        tensors = {
            f"{group}/{name}": value.detach().cpu().clone()
            for group, values in groups.items()
            for name, value in values.items()
        }
        with atomic(self.folder / FILE) as temporary:
            temporary.write_bytes(save(tensors, {"position": json.dumps(asdict(position))}))

    def restore(self, device: torch.device, reporter: Reporter) -> tuple[dict[str, Tensor], Position] | None:
        """Put all back, and return the best model so far and the position; None where there is no checkpoint."""
        if not (self.folder / FILE).exists():
            return None
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}, "random": {}}
        try:
            with safe_open(self.folder / FILE, "pt") as file:
                position = Position(**json.loads(file.metadata()["position"]))
                for key in file.keys():  # noqa: SIM118 (no mapping)
                    group, _, name = key.partition("/")
                    groups[group][name] = file.get_tensor(key)
            if _shapes(groups["model"]) != _shapes(self.module.state_dict()):
                raise ValueError("it is of another model")
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            reporter.warn(f"{self.folder / FILE}: cannot be read ({error}): starting again")
            return None
        self.module.load_state_dict(groups["model"])
        # Optimizer.load_state_dict would turn whole numbers into floats.
        for key, value in groups["optimizer"].items():
            number, _, name = key.partition(".")
            self.optimizer.state[self._parameters[int(number)]][name] = value.to(device)
        torch.set_rng_state(groups["random"]["cpu"])
        if "cuda" in groups["random"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(groups["random"]["cuda"])
        return groups["best"], position
