"""The training loop: Adam, a moving average of the weights, and a state to resume from exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from .config import TrainingConfig

ADAM_BETAS = (0.9, 0.99)
WARMUP_STEPS = 100
COOLDOWN_SHARE = 0.4
# The average's memory grows with the run: a power function of relative width 10 % (arXiv:2312.02696, equation 3).
EMA_EXPONENT = 6.94
MAX_GRADIENT_NORM = 1.0


class Objective(Protocol):
    """What a model is trained for. It decides which of the model's parameters require gradients."""

    def __call__(self, step: int) -> Tensor:
        """The loss of a step, a scalar: a function only of the weights and of the step's number, counted from 1."""

    def sheet(self) -> Tensor:
        """Rows of pictures (rows, n, 3, size, size) in [-1, 1] that show the model's progress."""


@dataclass(frozen=True)
class Step:
    """One finished step: its number from 1, and its loss."""

    number: int
    loss: float


class Trainer:
    """Trains the parameters of `model` that require gradients on a loss that is a function of the step's number."""

    def __init__(self, model: nn.Module, config: TrainingConfig):
        self.config = config
        self.step = 0
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.optimizer = torch.optim.Adam(self.parameters.values(), betas=ADAM_BETAS, lr=0.0)

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then constant, falling to zero over the last `COOLDOWN_SHARE` (arXiv:2405.18392)."""
        to_go = 1 - (step - 1) / self.config.steps
        return self.config.learning_rate * min(step / WARMUP_STEPS, 1.0, to_go / COOLDOWN_SHARE)

    def run(self, loss: Callable[[int], Tensor]) -> Iterator[Step]:
        """Take the remaining steps, up to the configured number."""
        while self.step < self.config.steps:
            self.step += 1
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(self.step)
            value = loss(self.step)
            if not torch.isfinite(value):
                raise FloatingPointError(f"the loss of step {self.step} is {value.item()}")
            value.backward()
            nn.utils.clip_grad_norm_(self.parameters.values(), MAX_GRADIENT_NORM)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self._update_average()
            yield Step(self.step, value.item())

    def _update_average(self) -> None:
        share = 1 - (1 - 1 / self.step) ** (EMA_EXPONENT + 1)
        for name, parameter in self.parameters.items():
            self.average[name].lerp_(parameter.detach(), share)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside the context the model has the averaged weights."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.data, self.average[name] = self.average[name], parameter.data
        try:
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data, self.average[name] = self.average[name], parameter.data

    def state(self) -> dict[str, Tensor]:
        """Weights, their average and the optimizer's moments: all that the next step depends on except its number."""
        tensors = {}
        for name, parameter in self.parameters.items():
            moments = self.optimizer.state[parameter]
            tensors[f"weights.{name}"] = parameter.detach().contiguous()
            tensors[f"average.{name}"] = self.average[name].contiguous()
            tensors[f"first_moment.{name}"] = moments["exp_avg"].contiguous()
            tensors[f"second_moment.{name}"] = moments["exp_avg_sq"].contiguous()
        return tensors

    def resume(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Continue after a step from its `state`."""
        self.step = step
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state[f"weights.{name}"])
                self.average[name].copy_(state[f"average.{name}"])
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(step)),
                    "exp_avg": state[f"first_moment.{name}"].to(parameter.device),
                    "exp_avg_sq": state[f"second_moment.{name}"].to(parameter.device),
                }
