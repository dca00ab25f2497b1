"""What a training needs: losses, the teacher's representation as a further one, optimisers, clipping, the checkpoint.

A checkpoint keeps whole what the sparse optimisers count in whole numbers: steps, and the last one of each row.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel

from kdcli.api import Reporter
from kdcli.config.schema import StudentSettings
from kdcli.errors import DataError, ProfileError
from kdcli.files import atomic
from kdcli.models.losses import label_losses

FILE = "checkpoint.safetensors"
Loss = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]
"""From the student's logits ``[batch, outputs]``, the teacher's and the labels to a number."""
_SAMPLE = 20_000  # the rows by which the values are standardised: enough, and no matter how many there are


def mse(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the mean squared error of the logits (Tang et al. 2019, section 3.2); it has no temperature."""
    return functional.mse_loss(student.float(), teacher.float())


def kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return KL(teacher || student) at a temperature, the mean over the batch, times the temperature squared.

    The factor keeps the gradient's size whatever the temperature (Hinton et al. 2015, section 2).
    """
    target = functional.log_softmax(teacher.float() / temperature, dim=-1)
    output = functional.log_softmax(student.float() / temperature, dim=-1)
    return functional.kl_div(output, target, reduction="batchmean", log_target=True) * temperature**2


def bce(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the binary cross entropy with the teacher's probability of each label, the mean over all labels."""
    return functional.binary_cross_entropy_with_logits(student.float(), teacher.float().sigmoid())


LOSSES = {"mse": mse, "kl": kl, "bce": bce}  # the distillation losses by their name in ``student.kd_loss``


def loss_of(settings: StudentSettings, weights: Tensor | None = None) -> Loss:
    """Return the weighted sum of the settings' losses, without those of weight 0; ``weights`` are the classes'."""
    distance = LOSSES[settings.kd_loss]

    def loss(student: Tensor, teacher: Tensor | None, labels: Tensor | None) -> Tensor:
        parts = []
        if settings.kd_weight and teacher is not None:
            parts.append(settings.kd_weight * distance(student, teacher, settings.temperature))
        if settings.ce_weight and labels is not None:
            parts.append(settings.ce_weight * label_losses(student, labels, weights).mean())
        return sum(parts[1:], start=parts[0])

    return loss


class Representation(nn.Module):
    """A layer that predicts the teacher's representation from what the student's layer ``logits`` reads.

    Its loss is in units of the variance of the teacher's logits, so that one weight suits teachers of any scale. It
    serves the training alone (Mukherjee and Hassan Awadallah 2019, section 4.2, where it is a stage of its own). No
    representations are a ``DataError``, and a student without such a linear layer is a ``ProfileError``.
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
        return self.scale * functional.mse_loss(self.predict(self.read.float()), wanted)


class SparseAdadelta(Optimizer):
    """AdaDelta (Zeiler 2012) for sparse gradients of whole rows: a step costs as much as the rows that have one.

    It equals ``torch.optim.Adadelta``: where a gradient is zero the parameter stays and both averages shrink by
    ``rho``; a row of a sparse gradient makes up for the steps it has missed when it is next seen.
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
    gradient = parameter.grad
    assert gradient is not None
    if gradient.is_sparse:
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
        if "seen" not in state:
            # The step up to which a row's averages are right.
            state["seen"] = torch.full((len(parameter),), int(state["step"]) - 1, device=parameter.device)
    elif "seen" in state:
        rows, values = torch.arange(len(parameter), device=parameter.device), gradient
    else:
        parameter.sub_(_delta(gradient, state["squares"], state["deltas"], rho, eps), alpha=lr)
        return
    shrink = _catch_up(state, rows, rho)
    squares, deltas = state["squares"][rows].mul_(shrink), state["deltas"][rows].mul_(shrink)
    parameter.index_add_(0, rows, _delta(values, squares, deltas, rho, eps), alpha=-lr)
    state["squares"].index_copy_(0, rows, squares)
    state["deltas"].index_copy_(0, rows, deltas)


def _catch_up(state: dict[str, Tensor], rows: Tensor, rho: float) -> Tensor:
    """Return the factor of rows' averages for the steps that they have missed, ``[rows, 1]``, and mark this step."""
    step = int(state["step"])
    missed = step - 1 - state["seen"][rows]
    state["seen"].index_fill_(0, rows, step)
    return (rho ** missed.double()).to(state["squares"].dtype)[:, None]


def _delta(gradient: Tensor, squares: Tensor, deltas: Tensor, rho: float, eps: float) -> Tensor:
    """Return the change at learning rate 1, to be subtracted, and update the averages."""
    squares.mul_(rho).addcmul_(gradient, gradient, value=1 - rho)
    delta = deltas.add(eps).div_(squares + eps).sqrt_().mul_(gradient)
    deltas.mul_(rho).addcmul_(delta, delta, value=1 - rho)
    return delta


class SparseAdam(Adam):
    """Adam (Kingma and Ba 2015) that changes only the rows that a sparse gradient has.

    Adam's momentum goes on changing a row for some ten steps after its gradient. Here all of that happens at once,
    which comes to the same for a row that is seldom seen, so that the average of squares is all that is kept of it.
    """

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Take a step from the gradients there are."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    _adam(parameter, self.state[parameter], group["lr"], group["betas"][1], group["eps"])
                    parameter.grad = None
        super().step()


def _adam(parameter: Tensor, state: dict[str, Tensor], lr: float, rho: float, eps: float) -> None:
    if not state:
        state["step"] = torch.zeros((), dtype=torch.int64)
        state["squares"] = torch.zeros_like(parameter)
        state["seen"] = torch.zeros(len(parameter), dtype=torch.int64, device=parameter.device)
    assert parameter.grad is not None
    gradient = parameter.grad.coalesce()
    rows, values = gradient.indices()[0], gradient.values()
    state["step"] += 1
    squares = state["squares"][rows].mul_(rho * _catch_up(state, rows, rho)).addcmul_(values, values, value=1 - rho)
    state["squares"].index_copy_(0, rows, squares)
    squares.div_(1 - rho ** int(state["step"]))
    parameter.index_add_(0, rows, values / squares.sqrt_().add_(eps), alpha=-lr)


def make_optimizer(module: nn.Module, settings: StudentSettings, device: torch.device) -> Optimizer:
    """Make the optimiser; where it and the device can, the gradients of trained embeddings become sparse."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    local = device.type in ("cpu", "cuda")
    adam = settings.optimizer != "adadelta"
    for part in module.modules():
        if isinstance(part, nn.Embedding) and part.weight.requires_grad and local:
            part.sparse = not (adam and settings.weight_decay)
    if not adam:
        return SparseAdadelta(trained, lr=settings.learning_rate, rho=settings.rho)
    if not settings.weight_decay:  # without it, AdamW is Adam
        return SparseAdam(trained, lr=settings.learning_rate, fused=local)
    kind = Adam if settings.optimizer == "adam" else AdamW
    return kind(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=local)


def averaged(module: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of a module that keeps an exponential moving average of its weights, and shares the frozen ones.

    The decay grows from 0.1 to ``decay``, so that the first weights, which have learned little, are soon forgotten.
    """

    def update(averages: Sequence[Tensor], weights: Sequence[Tensor], updates: Tensor | int) -> None:
        share = 1 - min(decay, (1 + int(updates)) / (10 + int(updates)))
        for average, weight in zip(averages, weights, strict=True):
            if average.data_ptr() != weight.data_ptr():
                average.lerp_(weight, share)

    copied = AveragedModel(module, multi_avg_fn=torch.no_grad()(update))
    for average, weight in zip(copied.module.parameters(), module.parameters(), strict=True):
        if not weight.requires_grad:
            average.data = weight.data
    return copied


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


def learned(module: nn.Module) -> dict[str, Tensor]:
    """Return the state of a module without its frozen parameters, which are the same from beginning to end."""
    frozen = {name for name, one in module.named_parameters(remove_duplicate=False) if not one.requires_grad}
    return {name: value for name, value in module.state_dict().items() if name not in frozen}


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
        """Write what is learned of the model and of the best one so far, the optimiser, random state and position."""
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            random["cuda"] = torch.cuda.get_rng_state()
        state = {
            f"{number}.{name}": value
            for number, parameter in enumerate(self._parameters)
            for name, value in self.optimizer.state.get(parameter, {}).items()
        }
        groups = {"model": learned(self.module), "best": best, "optimizer": state, "random": random}
        tensors: dict[str, Tensor] = {}
        storages = set[int]()
        for group, values in groups.items():
            for name, value in values.items():
                here = value.detach().cpu().contiguous()
                storage = here.untyped_storage().data_ptr()
                # A copy takes memory: only of weights that a plugin shares, which safetensors takes no second time.
                tensors[f"{group}/{name}"] = here.clone() if storage in storages else here
                storages.add(storage)
        with atomic(self.folder / FILE) as temporary:
            save_file(tensors, temporary, {"position": json.dumps(asdict(position))})

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
            if _shapes(groups["model"]) != _shapes(learned(self.module)):
                raise ValueError("it is of another model")
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            reporter.warn(f"{self.folder / FILE}: cannot be read ({error}): starting again")
            return None
        self.module.load_state_dict(groups["model"], strict=False)
        # Optimizer.load_state_dict would turn whole numbers into floats.
        for key, value in groups["optimizer"].items():
            number, _, name = key.partition(".")
            self.optimizer.state[self._parameters[int(number)]][name] = value.to(device)
        torch.set_rng_state(groups["random"]["cpu"])
        if "cuda" in groups["random"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(groups["random"]["cuda"])
        return groups["best"], position
