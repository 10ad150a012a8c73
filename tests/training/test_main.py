"""The command's words: mistakes in them are told before anything is trained."""

from pathlib import Path

import pytest

from sgm.flags import read_request
from sgm.training import __main__ as training
from sgm.training.__main__ import TrainingRequest, main

CONFIG = str(Path(__file__).parents[2] / "configs" / "training" / "svd_tiny.yaml")


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


def test_words_become_a_request() -> None:
    request = read_request(TrainingRequest, [CONFIG, "--steps=300", "--device", "cpu"], "config_file", advice="")
    assert request == TrainingRequest(Path(CONFIG), Path("outputs/training/svd_tiny"), "cpu", 300)
