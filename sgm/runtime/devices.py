"""What to compute on and in: the devices of this machine, and the precision that suits each."""

from __future__ import annotations

import ctypes
import sys

import torch

from ..errors import UserError

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
