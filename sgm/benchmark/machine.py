"""What a benchmark ran on."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil
import torch

from ..outputs.record import package_versions


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Names, clocks and versions of everything that speed depends on."""
    described = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "packages": package_versions(),
    }
    if device.type == "cuda":
        described |= {
            "device_memory_bytes": torch.cuda.get_device_properties(device).total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "clocks": _clocks(device),
        }
    return described


def _processor() -> str:
    """The processor's own name where the system gives it, else its kind."""
    known = Path("/proc/cpuinfo")
    if known.is_file():
        for line in known.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _clocks(device: torch.device) -> str:
    """The graphics card's clocks, their maxima and its power limit; empty where the driver's tool is missing."""
    query = "clocks.sm,clocks.max.sm,clocks.mem,power.limit,driver_version"
    index = device.index or 0
    try:
        answer = subprocess.run(
            ["nvidia-smi", f"--id={index}", f"--query-gpu={query}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.strip()
