"""The command as a whole: what it leaves behind, how it resumes, and the mistakes it reports before any work."""

import dataclasses
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from sgm.checkpoint.loading import load_model
from sgm.config import load_config
from sgm.progress import Progress
from sgm.training import __main__ as training
from sgm.training.__main__ import COMMAND, TrainingRequest, main
from sgm.training.config import load_training_config
from sgm.training.denoising import DenoisingObjective
from sgm.training.state import save_state

CONFIG = str(Path(__file__).parents[2] / "configs" / "training" / "svd_tiny.yaml")


@pytest.fixture
def train_one_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command on a model of one layer that is saved every third step; `before_step` is called with its number."""

    def run(before_step: Callable[[int], None], *words: str) -> int:
        class ShrinkWeights:
            def __init__(self, model: torch.nn.Module, *_: object):
                self.parameter = next(model.parameters())

            def __call__(self, step: int) -> torch.Tensor:
                before_step(step)
                return self.parameter.square().mean()

            def sheet(self) -> torch.Tensor:
                return torch.zeros(1, 1, 3, 8, 8)

        monkeypatch.setitem(training.OBJECTIVES, "unet", ShrinkWeights)
        return main([CONFIG, "--output_folder", str(tmp_path), "--device", "cpu", *words])

    config = dataclasses.replace(load_training_config(Path(CONFIG)), start_from="", sheet_every=3)
    monkeypatch.setattr(training, "load_training_config", lambda path: config)
    monkeypatch.setattr(training, "build_model", lambda config: torch.nn.Linear(2, 2, bias=False))
    monkeypatch.setattr(training, "save_weights", lambda model, path: None)
    return run


@pytest.mark.parametrize(("stopped_at", "told"), [(4, "step 3 is saved in"), (2, "nothing has been saved yet")])
def test_ctrl_c_says_what_is_saved(
    stopped_at: int, told: str, train_one_layer: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(step: int) -> None:
        if step == stopped_at:
            raise KeyboardInterrupt

    assert train_one_layer(interrupt) == 130
    assert told in capsys.readouterr().err


def test_without_a_terminal_a_long_training_says_how_far_it_is(
    train_one_layer: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps take 40 s each: a line a minute, and one for each saved state."""
    now = 0.0

    def take_40_seconds(step: int) -> None:
        nonlocal now
        now += 40

    def printed() -> list[str]:
        return [re.sub(r"loss [\d.]+", "loss X", line) for line in capsys.readouterr().err.splitlines()]

    monkeypatch.setattr(training, "Progress", partial(Progress, clock=lambda: now))
    assert train_one_layer(take_40_seconds, "--steps", "6") == 0
    assert printed() == [
        "training: 2 of 6, 02:40 left",
        "step 3 of 6 is saved; mean loss X",
        "training: 5 of 6, 00:40 left",
        "step 6 of 6 is saved; mean loss X",
    ]
    assert train_one_layer(take_40_seconds, "--steps", "9") == 0
    assert printed() == ["training from step 6: 2 of 3, 00:40 left", "step 9 of 9 is saved; mean loss X"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no training configuration"),
        (["nowhere.yaml"], "no training configuration nowhere.yaml"),
        ([CONFIG, "--step", "3"], "did you mean steps"),
        ([CONFIG, "--steps", "some"], "steps can't be 'some'"),
        ([CONFIG, "--steps", "0"], "from 1 to"),
        ([CONFIG, "--device", "gpu"], "device can't be 'gpu'"),
        ([CONFIG, "output"], "'output' belongs to no parameter"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "train", lambda request: pytest.fail("trained all the same"))
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert told in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a cuda")
def test_a_device_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([CONFIG, "--device", "cuda", f"--output_folder={tmp_path / 'out'}"]) == 2
    assert "this machine has" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [(KeyboardInterrupt(), 130, "stopped by Ctrl-C\n"), (OSError(28, "No space left"), 1, "No space left")],
)
def test_what_ends_a_training_is_one_line(
    error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(request: TrainingRequest) -> None:
        raise error

    monkeypatch.setattr(training, "train", fail)
    assert main([CONFIG]) == code
    assert told in capsys.readouterr().err


def test_words_become_a_request() -> None:
    request = COMMAND.read([CONFIG, "--steps=300", "--device", "cpu"])
    assert request == TrainingRequest(Path(CONFIG), Path("outputs/training/svd_tiny"), "cpu", 300)


def test_a_bundled_run_is_named_without_its_folder() -> None:
    assert TrainingRequest(Path("svd_tiny")) == TrainingRequest(Path(CONFIG))


def test_a_stopped_training_goes_on_and_leaves_weights_that_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DenoisingObjective, "sheet", lambda self: torch.zeros(1, 2, 3, 8, 8))  # sampling takes long
    config = load_training_config(Path(CONFIG).with_name("sv3d_tiny.yaml"))
    config = dataclasses.replace(config, start_from="", size=16, num_clips=2, batch_size=1)
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(dataclasses.asdict(config)))

    def losses_after(folder: str, *steps: int) -> list[float]:
        for last in steps:
            assert main([str(file), f"--output_folder={tmp_path / folder}", f"--steps={last}", "--device=cpu"]) == 0
        losses: list[float] = json.loads((tmp_path / folder / "losses.json").read_text())
        return losses

    assert losses_after("stopped", 1, 3) == pytest.approx(losses_after("whole", 3), rel=1e-5)
    parts = {f"state-000003-{part}of4.safetensors" for part in (1, 2, 3, 4)}
    shown = {"weights.safetensors", "losses.json", "loss.png", "sheet-000001.png", "sheet-000003.png"}
    assert {path.name for path in (tmp_path / "stopped").iterdir()} == parts | shown
    weights = tmp_path / "stopped" / "weights.safetensors"
    load_model(load_config("sv3d_tiny"), weights, device=torch.device("cpu"), dtype=torch.float32)
    assert all(path.stat().st_size < 16 * 2**20 for path in (tmp_path / "stopped").iterdir())


def test_the_state_of_another_run_is_not_gone_on_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    config = load_training_config(Path(CONFIG).with_name("decoder.yaml"))
    save_state(folder, 1, {"x": torch.zeros(1)}, training.run_identity(dataclasses.replace(config, learning_rate=1.0)))
    (folder / "losses.json").write_text("[1.0]")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(config, size=16))))
    assert main([str(file), f"--output_folder={folder}"]) == 2
    assert "differs in learning_rate, size" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
