"""Writes the reference of `sample.py`'s parameters from the declarations that check them and print `--help`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from .parameter import Parameter, parameters_of
from .request import Request
from .sampling import SamplingParameters

COMMAND = "python -m sgm.parameters > docs/parameters.md"

# From what most clips need to what few do; every parameter is in one group.
GROUPS = {
    "What to make": ("input_path", "recursive", "version", "num_frames", "width", "height", "seed"),
    "Motion": ("motion_bucket_id", "fps_id", "cond_aug"),
    "Objects and cameras": ("elevations_deg", "azimuths_deg", "image_frame_ratio"),
    "Output": ("output_folder", "formats", "fps", "quality"),
    "Fidelity and speed": (
        "preset",
        "num_steps",
        "schedule",
        "sampler",
        "guidance_interval",
        "cache_interval",
        "decode",
        "compile",
        "batch_size",
    ),
    "Device and memory": ("device", "precision", "fp8", "memory", "decoding_t"),
    "Weights": ("checkpoint", "download", "config"),
    "Ray clusters": ("engine", "ray_address", "gpus_per_worker", "cpus_per_worker"),
    "Reproducing and diagnosing": ("from_record", "verbose"),
}

HEAD = f"""# Parameters

Every parameter of `sample.py`. All are optional and written `--name value`; lists go without spaces or in quotes, as in
`--elevations_deg "[10,20,10]"`. In Python the same names are keyword arguments, see [Python](python.md).

A mistake is reported in one line (mistakes in a list of images in one line each) before anything is loaded. A parameter
that the version has no use for gets a warning. Exit codes: 0 done, 1 something failed, 2 a mistake in the request,
130 stopped by Ctrl-C.

This page is generated from the declarations that check the values and print `python sample.py --help`:

```bash
{COMMAND}
```
"""


def parameters_page() -> str:
    """The page in Markdown: a table of each group, with what a parameter does, what is allowed, and its default."""
    declared = {
        name: (parameter, owner)
        for owner in (Request, SamplingParameters)
        for name, parameter in parameters_of(owner).items()
    }
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(declared), sorted({*grouped} ^ {*declared})
    sections = [_section(title, [(name, *declared[name]) for name in names]) for title, names in GROUPS.items()]
    return "\n".join([HEAD, *sections])


def _section(title: str, rows: Iterable[tuple[str, Parameter, type]]) -> str:
    lines = [f"## {title}", "", "| parameter | what it does |", "| --- | --- |"]
    for name, parameter, owner in rows:
        allowed = ", ".join(f"`{choice}`" for choice in parameter.choices) or _plain(parameter.allowed)
        default = _plain(parameter.default_text) or f"`{getattr(owner, name)}`"
        cell = f"{_plain(parameter.explanation)}<br>**Allowed:** {allowed}. **Default:** {default}."
        lines.append(f"| `{name}` | {cell} |")
    return "\n".join(lines) + "\n"


def _plain(words: str) -> str:
    """Words in which nothing counts as Markdown."""
    return re.sub(r"([\\|*<>\[\]])", r"\\\1", words)


if __name__ == "__main__":
    sys.stdout.write(parameters_page())
