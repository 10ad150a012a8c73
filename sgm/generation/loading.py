"""A model on its device, or one on each of several that make clips together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from ..checkpoint.files import Checkpoint
from ..checkpoint.loading import load_model
from ..checkpoint.loading_interpolator import config_of
from ..checkpoint.text_adapter import add_text_adapter
from ..config import ModelConfig
from ..diffusion.edm import clips_a_step
from ..parameters.text_adapter import without_text
from ..progress import Progress
from ..runtime.compilation import compile_blocks
from ..runtime.devices import MEMORY_MODES, PRECISIONS, choose_memory
from ..runtime.fp8 import use_fp8
from ..runtime.frame_sharing import FrameGroup, share_frames
from ..runtime.offloading import Placement, weights_device
from ..runtime.parallel import Ranks, start_ranks
from .frames import FrameGenerator

HELPER = "sgm.generation.helper"


@dataclass(frozen=True)
class Loading:
    """What to load, and how; all of it chosen and checked but for the memory mode, which may be `auto`."""

    config: ModelConfig
    checkpoint: Checkpoint
    precision: str
    fp8: str
    memory: str
    compile: bool


def load_generator(
    loading: Loading, device: torch.device, progress: Progress, ranks: Ranks | None = None
) -> FrameGenerator:
    """The generator on a device; of several ranks, all of them call this, and all choose the same memory mode."""
    dtype, fp8 = PRECISIONS[loading.precision], loading.fp8 != "off"
    config, checkpoint = loading.config, loading.checkpoint
    beside = None if checkpoint.interpolator is None else config_of(checkpoint.interpolator)
    memory = choose_memory(loading.memory, config, device, dtype, fp8=fp8, interpolator=beside)
    if ranks:
        memory = max(ranks.gather(lambda: memory), key=list(MEMORY_MODES).index)
    home = weights_device(MEMORY_MODES[memory], device)
    model = load_model(
        config if checkpoint.text_adapter is None else without_text(config),
        checkpoint.path,
        device=home,
        dtype=dtype,
        track=partial(progress.track, "loading", unit="tensor"),
    )
    if checkpoint.text_adapter is not None:
        model = add_text_adapter(model, checkpoint, config, device=home, dtype=dtype)
    if fp8:
        use_fp8(model.unet, linears=loading.fp8 == "linears")
    placement = Placement(model, device, memory)
    if loading.compile:
        compile_blocks(model.unet)
    group = None
    if ranks:
        group = FrameGroup(ranks, clips_a_step(config.guidance), device)
        if group.size > 1:
            share_frames(model.unet, group)
        ranks.meet()
    return FrameGenerator(model, placement, progress, group)


def load_generators(loading: Loading, devices: Sequence[torch.device], progress: Progress) -> FrameGenerator:
    """The generator on the first device; on each further one a helper process has another, and helps it."""
    if len(devices) == 1:
        return load_generator(loading, devices[0], progress)
    ranks = start_ranks(HELPER, [str(device) for device in devices])
    try:
        ranks.order("load", replace(loading, checkpoint=loading.checkpoint.absolute()), torch.get_num_threads())
        return load_generator(loading, devices[0], progress, ranks)
    except BaseException:
        ranks.close()
        raise
