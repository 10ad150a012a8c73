"""The training loop: a stopped run goes on as if it had never stopped."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sgm.training.config import TrainingConfig, load_training_config
from sgm.training.loop import Trainer

CONFIG = Path(__file__).parents[2] / "configs" / "training" / "sv3d_tiny.yaml"


def config(steps: int) -> TrainingConfig:
    return replace(load_training_config(CONFIG), steps=steps, learning_rate=0.1)


class Line:
    """A least-squares problem whose batch is a function of the step."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(3, 1)

    def __call__(self, step: int) -> Tensor:
        x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
        return ((self.model(x) - x.sum(1, keepdim=True)) ** 2).mean()


def run(line: Line, trainer: Trainer) -> list[float]:
    return [step.loss for step in trainer.run(line)]


def test_a_stopped_run_goes_on_as_if_never_stopped() -> None:
    whole = Line()
    trainer = Trainer(whole.model, config(8))
    losses = run(whole, trainer)

    first = Line()
    stopped = Trainer(first.model, config(8))
    start = [step.loss for step in islice(stopped.run(first), 5)]
    state = {name: tensor.clone() for name, tensor in stopped.state().items()}
    second = Line()
    resumed = Trainer(second.model, config(8))
    resumed.resume(5, state)
    assert start + run(second, resumed) == losses
    for name, average in trainer.average.items():
        torch.testing.assert_close(resumed.average[name], average, rtol=0, atol=0)


def test_it_learns_and_the_average_follows() -> None:
    line = Line()
    trainer = Trainer(line.model, config(300))
    losses = run(line, trainer)
    assert losses[-1] < losses[0] / 100
    before = line.model.weight.detach().clone()
    with trainer.averaged():
        assert not torch.equal(line.model.weight, before)
        torch.testing.assert_close(line.model.weight, torch.ones(1, 3), rtol=0, atol=0.05)
    assert torch.equal(line.model.weight, before)


def test_the_average_is_the_power_function_of_its_paper() -> None:
    """Parameters that equal the step: the average of t^gamma weights is (gamma + 1) / (gamma + 2) of the last step."""
    model = nn.Linear(1, 1, bias=False)
    trainer = Trainer(model, config(1))
    for step in range(1, 401):
        trainer.step = step
        model.weight.data.fill_(float(step))
        trainer._update_average()
    assert trainer.average["weight"].item() / 400 == pytest.approx(7.94 / 8.94, rel=0.01)


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    trainer = Trainer(nn.Linear(1, 1), config(1000))
    assert trainer.learning_rate(50) == pytest.approx(0.05)
    assert trainer.learning_rate(100) == trainer.learning_rate(601) == pytest.approx(0.1)
    assert trainer.learning_rate(801) == pytest.approx(0.05)
    assert trainer.learning_rate(1000) == pytest.approx(0.1 / 400)


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    line = Line()
    trainer = Trainer(line.model, config(3))
    with pytest.raises(FloatingPointError, match="step 1 is nan"):
        next(iter(trainer.run(lambda step: line(step) * torch.nan)))
