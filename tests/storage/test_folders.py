"""Where things are, in a checkout and beside it; tests/test_package.py asks the same of an installed wheel."""

from pathlib import Path

import pytest

from sgm.storage import files

PROJECT = Path(__file__).parents[2]


def test_a_checkout_keeps_its_files_beside_the_package() -> None:
    assert files.is_checkout()
    assert (files.config_folder(), files.example_folder()) == (PROJECT / "configs", PROJECT / "assets")
    assert files.training_config_folder() == PROJECT / "configs" / "training"
    assert files.bundled_checkpoint_folder() == files.user_checkpoint_folder() == PROJECT / "checkpoints"


def test_weights_of_the_users_own_come_after_the_bundled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert files.checkpoint_folders() == (PROJECT / "checkpoints", tmp_path / "sgm" / "checkpoints")


def test_results_go_into_the_folder_that_the_user_is_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert files.output_folder("svd_tiny").absolute() == tmp_path / "outputs" / "svd_tiny"
