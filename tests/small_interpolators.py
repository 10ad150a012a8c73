"""A file like those that EMA-VFI was released as: its smallest network, with deterministic weights."""

from pathlib import Path

import torch

from tests.deterministic_weights import weights_for
from tests.small_models import key_list


def write_interpolator(path: Path) -> Path:
    """The file, with what training left behind in the released ones."""
    state = {
        f"module.{key}": weights_for(f"module.{key}", shape) for key, shape in key_list("ema_vfi_ours_small").items()
    }
    state["module.feature_bone.block4.1.attn_mask"] = torch.zeros(4, 49, 49)
    state["module.feature_bone.block4.0.HW"] = torch.tensor([32, 32])
    torch.save(state, path)
    return path
