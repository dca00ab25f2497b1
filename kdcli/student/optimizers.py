"""The optimisers, gradient clipping, and the optimiser's state as named tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from kdcli.config.schema import StudentSettings


class SparseAdadelta(Optimizer):
    """AdaDelta (Zeiler 2012) for sparse gradients of whole rows: a step costs as much as the rows that have one.

    It equals ``torch.optim.Adadelta``: where a gradient is zero the parameter stands still and both averages shrink by
    ``rho``, so that a row of a sparse gradient makes up for the steps it has missed when it is next seen.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float = 1.0, rho: float = 0.95, eps: float = 1e-6) -> None:
        super().__init__(parameters, {"lr": lr, "rho": rho, "eps": eps})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Take a step from the gradients there are."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _adadelta(parameter, self.state[parameter], group["lr"], group["rho"], group["eps"])


def _adadelta(parameter: Tensor, state: dict[str, Tensor], lr: float, rho: float, eps: float) -> None:
    if not state:
        state["step"] = torch.zeros((), dtype=torch.int64)
        state["squares"] = torch.zeros_like(parameter)  # average of squared gradients
        state["deltas"] = torch.zeros_like(parameter)  # average of squared changes
    state["step"] += 1
    step = int(state["step"])
    gradient = parameter.grad
    assert gradient is not None
    if gradient.is_sparse:
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
        if "seen" not in state:
            # The step up to which a row's averages are right.
            state["seen"] = torch.full((len(parameter),), step - 1, device=parameter.device)
    elif "seen" in state:
        rows, values = torch.arange(len(parameter), device=parameter.device), gradient
    else:
        parameter.sub_(_delta(gradient, state["squares"], state["deltas"], rho, eps), alpha=lr)
        return
    missed = step - 1 - state["seen"][rows]
    shrink = (rho ** missed.double()).to(values.dtype)[:, None]
    squares, deltas = state["squares"][rows].mul_(shrink), state["deltas"][rows].mul_(shrink)
    parameter.index_add_(0, rows, _delta(values, squares, deltas, rho, eps), alpha=-lr)
    state["squares"].index_copy_(0, rows, squares)
    state["deltas"].index_copy_(0, rows, deltas)
    state["seen"].index_fill_(0, rows, step)


def _delta(gradient: Tensor, squares: Tensor, deltas: Tensor, rho: float, eps: float) -> Tensor:
    """Return the change at learning rate 1, to be subtracted, and update the averages."""
    squares.mul_(rho).addcmul_(gradient, gradient, value=1 - rho)
    delta = deltas.add(eps).div_(squares + eps).sqrt_().mul_(gradient)
    deltas.mul_(rho).addcmul_(delta, delta, value=1 - rho)
    return delta


def make_optimizer(module: nn.Module, settings: StudentSettings, device: torch.device) -> Optimizer:
    """Make the optimiser; with AdaDelta, the gradients of trained embeddings become sparse where the device can."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if settings.optimizer == "adadelta":
        for part in module.modules():
            if isinstance(part, nn.Embedding) and part.weight.requires_grad and device.type in ("cpu", "cuda"):
                part.sparse = True
        return SparseAdadelta(trained, lr=settings.lr, rho=settings.rho)
    kind = Adam if settings.optimizer == "adam" else AdamW
    fused = device.type in ("cpu", "cuda")
    return kind(trained, lr=settings.lr, weight_decay=settings.weight_decay, fused=fused)


def clip_gradients(parameters: Iterable[Tensor], largest: float) -> None:
    """Scale all gradients, sparse ones too, so that their common norm is at most ``largest``."""
    values = []
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            values.append(parameter.grad.values())
        elif parameter.grad is not None:
            values.append(parameter.grad)
    norm = torch.stack([value.norm() for value in values]).norm()
    for value in values:
        value.mul_((largest / (norm + 1e-6)).clamp(max=1))


def optimizer_state(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the state as tensors, named by the number of the parameter and their own name."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        f"{number}.{name}": value
        for number, parameter in enumerate(parameters)
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back the tensors of ``optimizer_state``."""
    # Optimizer.load_state_dict would turn whole numbers into floats.
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state: dict[str, Any] = optimizer.state[parameters[int(number)]]
        state[name] = value
