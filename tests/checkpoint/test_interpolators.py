"""The files of EMA-VFI: found by their released names, read strictly, refused in a line."""

from pathlib import Path

import pytest
import torch

from sgm.checkpoint.files import Checkpoint
from sgm.checkpoint.interpolators import InterpolatorWeights, find_interpolator
from sgm.checkpoint.loading_interpolator import load_interpolator
from sgm.errors import UserError
from sgm.storage.files import file_sha256
from tests.deterministic_weights import weights_for
from tests.small_interpolators import write_interpolator

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_interpolator(tmp_path_factory.mktemp("released") / "ours_small_t.pkl")


def test_a_file_is_what_its_name_says(released: Path) -> None:
    found = find_interpolator(str(released))
    assert found == InterpolatorWeights(released)
    assert found.describe() == {"release": "ours_small_t", "path": str(released), "sha256": file_sha256(released)}
    knows = {name: InterpolatorWeights(Path(f"{name}.pkl")).knows_any_time for name in ("ours", "ours_t", "ours_small")}
    assert knows == {"ours": False, "ours_t": True, "ours_small": False}


def test_those_for_any_time_are_found_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = tmp_path / "first", tmp_path / "second"
    monkeypatch.setattr("sgm.checkpoint.interpolators.checkpoint_folders", lambda: folders)
    for folder in folders:
        folder.mkdir()
    with pytest.raises(UserError, match=r"get ours_t\.pkl, .*MCG-NJU/EMA-VFI, .*--interpolator_weights FILE"):
        find_interpolator()
    for path in (folders[1] / "ours_t.pkl", folders[0] / "ours_small.pkl", folders[0] / "ours.pkl"):
        path.touch()
        assert find_interpolator().path == path
    (folders[0] / "ours_t.pkl").touch()
    assert find_interpolator().path == folders[0] / "ours_t.pkl"


@pytest.mark.parametrize("name", ["ema_vfi.pkl", "ours_t.ckpt", "ours"])
def test_another_name_tells_too_little(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"its name must tell .* give one of ours_t\.pkl, ours\.pkl"):
        find_interpolator(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*ours\.pkl"):
        find_interpolator(tmp_path / "ours.pkl")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_number_arrives(released: Path, dtype: torch.dtype) -> None:
    network = load_interpolator(InterpolatorWeights(released), device=CPU, dtype=dtype)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, weights_for(f"module.{name}", tensor.shape).to(dtype)), name


def test_a_file_of_another_size_is_refused(released: Path, tmp_path: Path) -> None:
    (tmp_path / "ours_t.pkl").symlink_to(released)
    with pytest.raises(UserError, match=r"does not hold the weights of ours_t: \d+ keys differ \(module\.") as refused:
        load_interpolator(InterpolatorWeights(tmp_path / "ours_t.pkl"), device=CPU, dtype=torch.float32)
    assert "\n" not in str(refused.value)


class Harmful:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("content", ["code", "list", "bytes", "whole network"])
def test_what_is_not_tensors_is_refused_and_runs_nothing(tmp_path: Path, content: str) -> None:
    path, planted = tmp_path / "ours_t.pkl", tmp_path / "planted"
    if content == "bytes":
        path.write_bytes(b"no pickle" * 100)
    else:
        made = {"code": {"module.a": Harmful(planted)}, "list": [torch.zeros(2)], "whole network": torch.nn.PReLU()}
        torch.save(made[content], path)
    with pytest.raises(UserError, match=r"ours_t\.pkl is not a readable checkpoint") as refused:
        load_interpolator(InterpolatorWeights(path), device=CPU, dtype=torch.float32)
    assert "\n" not in str(refused.value)
    assert not planted.exists()


def test_on_other_machines_both_files_are_known_by_their_whole_path(
    released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(released.parent)
    found = Checkpoint(Path("svd.safetensors"), interpolator=InterpolatorWeights(Path(released.name))).absolute()
    assert found == Checkpoint(released.parent / "svd.safetensors", interpolator=InterpolatorWeights(released))
    assert Checkpoint(Path("svd.safetensors")).absolute() == Checkpoint(released.parent / "svd.safetensors")
