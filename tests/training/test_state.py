"""States: what is loaded is what was saved, whole, in small files, whenever the saving was cut off."""

from pathlib import Path

import pytest
import torch

from sgm.errors import UserError
from sgm.training import state
from sgm.training.state import PART_BYTES, load_state, save_state

RUN = {"seed": 1, "learning_rate": 0.1}


def tensors(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {"a": 2_000_000, "b": 2_500_000, "c": 7, "d": 1_000_000, "e": 3_000_000}
    return {name: torch.randn(size, generator=generator) for name, size in sizes.items()}


def test_what_is_loaded_was_saved_in_small_files(tmp_path: Path) -> None:
    save_state(tmp_path, 20, tensors(1), RUN)
    save_state(tmp_path, 30, tensors(2), RUN)
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == [f"state-000030-{number}of3.safetensors" for number in (1, 2, 3)]
    assert all(path.stat().st_size <= PART_BYTES + 4096 for path in files)
    loaded = load_state(tmp_path, RUN)
    assert loaded is not None
    assert loaded[0] == 30
    assert {name: tensor.tolist() for name, tensor in loaded[1].items()} == {
        name: tensor.tolist() for name, tensor in tensors(2).items()
    }


def test_a_cut_off_saving_leaves_the_earlier_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(tmp_path, 20, tensors(1), RUN)
    save, calls = state.save_file, []

    def killed_at_the_third(*args: object, **metadata: object) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        save(*args, **metadata)  # type: ignore[arg-type]

    monkeypatch.setattr(state, "save_file", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        save_state(tmp_path, 30, tensors(2), RUN)
    loaded = load_state(tmp_path, RUN)
    assert loaded is not None
    assert loaded[0] == 20
    assert torch.equal(loaded[1]["e"], tensors(1)["e"])


def test_there_may_be_none_or_one_of_another_run(tmp_path: Path) -> None:
    assert load_state(tmp_path, RUN) is None
    save_state(tmp_path, 20, {"x": torch.zeros(1)}, RUN)
    with pytest.raises(UserError, match=r"differs in seed, size; give this one its own --output_folder"):
        load_state(tmp_path, {"seed": 2, "learning_rate": 0.1, "size": 3})
