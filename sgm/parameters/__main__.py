"""Writes the reference of `sample.py`'s parameters from the declarations that check them and print `--help`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from .parameter import Parameter
from .sample_command import GROUPS, SAMPLE

COMMAND = "python -m sgm.parameters > docs/parameters.md"

HEAD = f"""# Parameters

Every parameter of `sample.py`. All are optional and written `--name value`; lists are written without spaces or in
quotes, as in `--elevations_deg "[10,20,10]"`. In Python the same names are keyword arguments, see [Python](python.md).

A mistake is reported in one line (one for each mistake in a list of images) before anything is loaded. A parameter that
the version doesn't use gets a warning. Exit codes: 0 done, 1 something failed, 2 a mistake in the request, 130 stopped
by Ctrl-C.

This page is generated from the declarations that check the values and print `python sample.py --help`:

```bash
{COMMAND}
```
"""


def parameters_page() -> str:
    """The page in Markdown: a table for each group, with what a parameter does, what is allowed, and its default."""
    declared = SAMPLE.parameters
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(declared), sorted({*grouped} ^ {*declared})
    sections = [_section(title, [(name, *declared[name]) for name in names]) for title, names in GROUPS.items()]
    return "\n".join([HEAD, *sections])


def _section(title: str, rows: Iterable[tuple[str, Parameter, object]]) -> str:
    lines = [f"## {title}", "", "| parameter | what it does |", "| --- | --- |"]
    for name, parameter, default_value in rows:
        allowed = ", ".join(f"`{choice}`" for choice in parameter.choices) or _plain(parameter.allowed)
        default = _plain(parameter.default_text) or f"`{default_value}`"
        cell = f"{_plain(parameter.explanation)}<br>**Allowed:** {allowed}. **Default:** {default}."
        lines.append(f"| `{name}` | {cell} |")
    return "\n".join(lines) + "\n"


def _plain(words: str) -> str:
    """The text with everything escaped that Markdown would interpret."""
    return re.sub(r"([\\|*<>\[\]])", r"\\\1", words)


if __name__ == "__main__":
    sys.stdout.write(parameters_page())
