"""Choices shared by several commands: their names and their fields, declared once."""

from __future__ import annotations

from typing import Any

from .parameter import DEVICE, DEVICES, NAME, TRUTH, parameter

SCHEDULES = ("karras", "ays")  # computed in `sgm.diffusion.edm`
SAMPLERS = ("euler", "heun", "dpmpp_2m")  # of `sgm.diffusion.edm`
PRECISIONS = ("fp16", "bf16", "fp32")
FP8_MODES = ("off", "weights", "linears")  # see `sgm.runtime.fp8`
MEMORY_MODES = ("high", "low", "lowest")  # see `sgm.runtime.devices`


def device_parameter(*, several: bool = False) -> Any:
    """The field for the device, or for several that make a clip together."""
    more = " Several cards, as in cuda:0,cuda:1, make each clip together." if several else ""
    return parameter(
        None,
        DEVICES if several else DEVICE,
        "What to compute on: a graphics card (cuda; cuda:1 is the second one; mps on a Mac) or the processor (cpu)."
        + more,
        default_text="cuda if available, else mps or cpu",
    )


def precision_parameter() -> Any:
    """The field for the precision."""
    return parameter(
        None,
        NAME,
        "The number format that the UNet and the image tower compute in: fp16 and bf16 need half the memory of fp32."
        " Decoding, which needs the most memory, is always in fp32.",
        choices=PRECISIONS,
        default_text="fp16 on cuda, else fp32",
    )


def fp8_parameter() -> Any:
    """The field for 8-bit weights and products."""
    return parameter(
        "off",
        NAME,
        "Keep the UNet's weights in 8 bits (weights), which takes half the memory of fp16, or also multiply in 8 bits"
        " (linears), on graphics cards that can. The clip differs slightly.",
        choices=FP8_MODES,
    )


def compile_parameter() -> Any:
    """The field for compiled blocks."""
    return parameter(
        False,
        TRUTH,
        "Compile the network's blocks first: the first clip takes longer, later ones less. For many clips of one size.",
        default_text="no",
    )
