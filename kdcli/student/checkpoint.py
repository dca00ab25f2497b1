"""Where a training that was stopped goes on: one file beside the output, whole or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from kdcli.api import Reporter
from kdcli.files import atomic
from kdcli.student.optimizers import optimizer_state, restore_optimizer


@dataclass(frozen=True)
class Checkpoint:
    """The resume file of one training.

    Args:
        path: The file.
        fingerprint: All that the training depends on, as JSON values; a file of another training is not used.
    """

    path: Path
    fingerprint: Mapping[str, Any]

    def save(
        self, module: nn.Module, optimizer: Optimizer, best: Mapping[str, Tensor], position: Mapping[str, Any]
    ) -> None:
        """Write down the model, the optimiser, the random state, the best model so far and the position."""
        tensors = {f"model/{name}": value for name, value in module.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in best.items()}
        tensors |= {f"optimizer/{name}": value for name, value in optimizer_state(optimizer).items()}
        tensors |= {f"random/{name}": value for name, value in _random_state().items()}
        metadata = {"fingerprint": json.dumps(self.fingerprint), "position": json.dumps(position)}
        with atomic(self.path) as temporary:
            temporary.write_bytes(
                save({name: value.detach().cpu().clone() for name, value in tensors.items()}, metadata)
            )

    def restore(
        self, module: nn.Module, optimizer: Optimizer, device: torch.device, reporter: Reporter
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Bring everything back to where it was.

        Returns:
            The best model so far and the position, or None where there is no file of this training.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                metadata = file.metadata()
                found = json.loads(metadata["fingerprint"])
                if not self._same(found, reporter):
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, KeyError, ValueError) as error:
            reporter.warn(f"{self.path}: cannot be read ({error}): starting again")
            return None
        module.load_state_dict(_under("model/", tensors))
        restore_optimizer(optimizer, {name: value.to(device) for name, value in _under("optimizer/", tensors).items()})
        _restore_random_state(_under("random/", tensors))
        return _under("best/", tensors), json.loads(metadata["position"])

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)

    def _same(self, found: Mapping[str, Any], reporter: Reporter) -> bool:
        wanted = json.loads(json.dumps(self.fingerprint))
        changed = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
        for key in changed:
            reporter.warn(f"{key} changed ({found.get(key)} -> {wanted.get(key)}): training starts again")
        return not changed


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _random_state() -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _restore_random_state(state: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
