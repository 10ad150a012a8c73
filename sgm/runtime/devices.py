"""What to compute on and with: the devices of this machine, and the precision that suits each."""

from __future__ import annotations

import ctypes
import sys

import torch

from ..errors import UserError

FP8_MODES = ("off", "weights", "linears")
FP8_CAPABILITY = (8, 9)  # of CUDA devices that multiply FP8 with FP8
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def choose_device(name: str | None) -> torch.device:
    """The device of that name, or the first of cuda, mps and cpu that there is. Raises UserError if it isn't there."""
    available = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    available += ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    if name is None:
        return torch.device(available[0].removesuffix(":0"))
    if name not in (*available, "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise UserError(f"device {name!r} is not there: this machine has {', '.join(available)}")
    return torch.device(name)


def keep_to_share(share: float) -> None:
    """Let this process have no more than a share, 0 to 1, of its graphics card's memory, for others work on it too.

    Beyond it, torch reports out of memory. Raises UserError where there is no card.
    """
    torch.cuda.set_per_process_memory_fraction(share, choose_device("cuda").index)


def give_back_memory(device: torch.device) -> None:
    """Let go of what allocators keep of freed memory: torch's on a graphics card, and the C library's.

    glibc keeps the gaps between what is still used, and after tensors of hundreds of megabytes the next of other sizes
    find no room in them (malloc_trim, man 3).
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
    """The precision of that name, or what suits the device: fp16 on cuda, fp32 elsewhere.

    On mps the attention's scores would be kept in half precision, where those of the released models overflow.
    """
    if name is None:
        return "fp16" if device.type == "cuda" else "fp32"
    if name not in PRECISIONS:
        raise UserError(f"precision {name!r} is not known: give one of {', '.join(PRECISIONS)}")
    return name


def check_fp8(mode: str, device: torch.device) -> None:
    """Raises UserError where `mode`, one of FP8_MODES, is not known or the device can't do it."""
    if mode not in FP8_MODES:
        raise UserError(f"fp8 {mode!r} is not known: give one of {', '.join(FP8_MODES)}")
    if mode != "off" and device.type == "mps":
        raise UserError("fp8 is not supported on mps: omit it")
    if mode == "linears" and device.type == "cuda" and torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        raise UserError("this graphics card doesn't multiply fp8 (Ada, Hopper and later ones do): give --fp8 weights")
