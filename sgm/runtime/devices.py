"""What to compute on and in: the devices of this machine, the precision that suits each, and its memory.

Memory modes don't change the clip: they differ in how much is in memory at a time.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import psutil
import torch
from torch import nn

from ..config import ModelConfig
from ..errors import UserError
from ..models.unet import Stage
from ..models.video_model import VideoModel, empty_model, is_used_when_sampling
from .fp8 import use_fp8

FP8_MODES = ("off", "weights", "linears")
FP8_CAPABILITY = (8, 9)  # that CUDA devices need to multiply FP8 by FP8
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def choose_device(name: str | None) -> torch.device:
    """The named device, or the first available of cuda, mps and cpu. Raises UserError if it isn't available."""
    available = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    available += ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    if name is None:
        return torch.device(available[0].removesuffix(":0"))
    if name not in (*available, "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise UserError(f"device {name!r} is not available: this machine has {', '.join(available)}")
    return torch.device(name)


def keep_to_share(share: float) -> None:
    """Limit this process to a share, 0 to 1, of its graphics card's memory, which it shares with other processes.

    Beyond that, torch reports out of memory. Raises UserError if there is no card.
    """
    torch.cuda.set_per_process_memory_fraction(share, choose_device("cuda").index)


def give_back_memory(device: torch.device) -> None:
    """Release the freed memory that allocators hold on to: torch's on a graphics card, and the C library's.

    glibc keeps the gaps between what is still in use, and after tensors of hundreds of megabytes the next ones, of
    other sizes, don't fit into them (malloc_trim, man 3).
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # not in every C library
            trim(0)


def choose_precision(name: str | None, device: torch.device) -> str:
    """The named precision, or the one that suits the device: fp16 on cuda, fp32 elsewhere.

    On mps the attention's scores would be kept in half precision, where those of the released models overflow.
    """
    if name is None:
        return "fp16" if device.type == "cuda" else "fp32"
    if name not in PRECISIONS:
        raise UserError(f"unknown precision {name!r}: give one of {', '.join(PRECISIONS)}")
    return name


def check_fp8(mode: str, device: torch.device) -> None:
    """Raise UserError if `mode` is none of FP8_MODES, or the device doesn't support it."""
    if mode not in FP8_MODES:
        raise UserError(f"unknown fp8 mode {mode!r}: give one of {', '.join(FP8_MODES)}")
    if mode != "off" and device.type == "mps":
        raise UserError("fp8 is not supported on mps: omit it")
    if mode == "linears" and device.type == "cuda" and torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        raise UserError("this graphics card can't multiply in fp8 (Ada, Hopper and later ones can): give --fp8 weights")


TOKENS_AT_ONCE = 2**15  # a feed-forward layer of the released models then needs at most 0.5 GB inside
# The peak memory of one call's tensors, by `sgm.benchmark.peak_memory`, in units of one activation of the finest level:
# of the UNet (frames, model_channels, h, w), and of the decoder (frames at once, base_channels, H, W).
UNET_ACTIVATIONS, UNET_ACTIVATIONS_IN_PARTS = 31.0, 19.1
DECODER_ACTIVATIONS, STREAMING_DECODER_ACTIVATIONS = 6.1, 7.1
MAX_CLIPS_AT_ONCE = 4  # the most `auto` takes; beyond, full-size inputs of convolutions have over 2^31 elements
# On top of tensors: the libraries' own memory and workspaces, and what the allocator loses to fragmentation.
OVERHEAD_BYTES, OVERHEAD_SHARE = 500_000_000, 0.1


@dataclass(frozen=True)
class MemoryMode:
    """How memory is saved.

    guidance_in_turn: guidance's two clips go through the UNet one after the other.
    tokens_at_once: how many tokens a feed-forward layer takes at a time; None is all.
    parks_models: of image tower, autoencoders and UNet only the one in use is on the device.
    offloads_unet: of the UNet only the stage in use and the next one are on the device.
    frames_at_once: how many frames the decoder takes at a time, layer by layer; None is a whole chunk.
    """

    guidance_in_turn: bool = False
    tokens_at_once: int | None = None
    parks_models: bool = False
    offloads_unet: bool = False
    frames_at_once: int | None = None


MEMORY_MODES = {  # from the most memory to the least
    "high": MemoryMode(),
    "low": MemoryMode(True, TOKENS_AT_ONCE, parks_models=True, frames_at_once=1),
    "lowest": MemoryMode(True, TOKENS_AT_ONCE, parks_models=True, offloads_unet=True, frames_at_once=1),
}


def next_lower(name: str) -> str | None:
    """The mode that needs less than the one of this name; None for the lowest."""
    names = [*MEMORY_MODES, None]
    return names[names.index(name) + 1]


def choose_memory(
    name: str, config: ModelConfig, device: torch.device, dtype: torch.dtype, *, fp8: bool = False
) -> str:
    """The named mode; for `auto`, the first that fits on the device with clips of the version's own size.

    If by the estimate not even the lowest fits, it is chosen anyway. Raises UserError for an unknown name.
    """
    if name != "auto":
        if name not in MEMORY_MODES:
            raise UserError(f"unknown memory mode {name!r}: give one of auto, {', '.join(MEMORY_MODES)}")
        return name
    free = free_bytes(device)
    for mode in MEMORY_MODES:
        if needed_bytes(MEMORY_MODES[mode], config, device, dtype, fp8=fp8) <= free:
            return mode
    return mode


def clips_with_room(
    mode: MemoryMode, config: ModelConfig, device: torch.device, dtype: torch.dtype, *, fp8: bool = False
) -> int:
    """How many clips of the version's own size fit through the UNet at once, with its weights already on the device.

    One on a CPU, where more would save no time.
    """
    if device.type != "cuda":
        return 1
    free = free_bytes(device) + torch.cuda.memory_reserved(device)
    counts = range(MAX_CLIPS_AT_ONCE, 1, -1)
    needed = (needed_bytes(mode, config, device, dtype, fp8=fp8, clips_at_once=count) for count in counts)
    return next((count for count, size in zip(counts, needed, strict=True) if size <= free), 1)


def has_own_memory(device: torch.device) -> bool:
    """Whether the device's memory is separate from the CPU's, so that weights can be parked in the latter."""
    return device.type == "cuda"


def free_bytes(device: torch.device) -> int:
    """How much memory the device has left for this process."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        share = torch.cuda.get_per_process_memory_fraction(device.index)  # less than 1 where workers share a card
        return min(free, int(share * total) - torch.cuda.memory_reserved(device))
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return int(psutil.virtual_memory().available)


def needed_bytes(
    mode: MemoryMode,
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    *,
    fp8: bool = False,
    clips_at_once: int = 1,
) -> int:
    """Roughly how much device memory clips of the version's own size need in all."""
    held = tensor_bytes(mode, config, device, dtype, fp8=fp8, clips_at_once=clips_at_once)
    return int(held * (1 + OVERHEAD_SHARE)) + OVERHEAD_BYTES


def tensor_bytes(
    mode: MemoryMode,
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    decoding_t: int = 14,
    *,
    fp8: bool = False,
    clips_at_once: int = 1,
) -> int:
    """Roughly the peak size of weights and activations on the device, for clips of the version's own size.

    fp8: whether the UNet's weights are kept in it (see `use_fp8`).
    """
    model = _without_numbers(config, dtype, fp8)
    unet_weights = _weights(model, ["unet."])
    clip_weights = _weights(model, ["conditioner.clip."])
    autoencoder_weights = _weights(model, ["conditioner.vae.", "first_stage."])
    pixels = config.width * config.height
    latents = pixels // config.latent_factor**2
    clips = clips_at_once * (1 if mode.guidance_in_turn else 2)
    activation = clips * config.num_frames * latents * config.unet.model_channels * dtype.itemsize
    unet = activation * (UNET_ACTIVATIONS if mode.tokens_at_once is None else UNET_ACTIVATIONS_IN_PARTS)
    frame = pixels * config.vae.base_channels * torch.float32.itemsize
    if mode.frames_at_once is None:
        decoder = min(decoding_t, config.num_frames) * frame * DECODER_ACTIVATIONS
    else:
        decoder = mode.frames_at_once * frame * STREAMING_DECODER_ACTIVATIONS
    parks_models = mode.parks_models and has_own_memory(device)
    if mode.offloads_unet and parks_models:
        sizes = sorted(sum(p.nbytes for p in stage.parameters()) for stage in _stages(model))
        unet_weights = sum(sizes[-2:])
    if parks_models:
        return int(max(clip_weights, autoencoder_weights + decoder, unet_weights + unet))
    return int(clip_weights + autoencoder_weights + unet_weights + max(decoder, unet))


@cache  # building one takes a fifth of a second
def _without_numbers(config: ModelConfig, dtype: torch.dtype, fp8: bool) -> VideoModel:
    """The model as it is loaded, on the meta device."""
    model = empty_model(config)
    model.unet.to(dtype)
    model.conditioner.clip.to(dtype)
    if fp8:
        use_fp8(model.unet, linears=False)
    return model


def _weights(model: nn.Module, prefixes: Iterable[str]) -> int:
    named = model.named_parameters()
    return sum(p.nbytes for name, p in named if name.startswith(tuple(prefixes)) and is_used_when_sampling(name))


def _stages(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, Stage)]
