"""`index.html`: all clips of a batch on one page, playing, each with its settings. It needs no file but the clips.

Whatever comes from files or users is escaped: a name is text here, never markup, and a link never leaves the folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import UserError
from ..outputs.clip_files import clip_paths
from ..outputs.publishing import CONTACT_SHEET_NAME
from ..outputs.record import read_record
from .make import Outcome

GENERATOR = '<meta name="generator" content="sgm contact sheet">'
SHOWN = ("version", "seed", "motion_bucket_id", "fps_id", "cond_aug", "preset", "num_steps", "schedule", "sampler",
         "guidance_interval", "cache_interval", "decode", "elevations_deg", "azimuths_deg",
         "image_frame_ratio")  # fmt: skip

STYLE = """
:root { color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif; }
body { margin: 1.5rem; }
h1 { font-size: 1.2rem; font-weight: 600; margin: 0 0 1rem; overflow-wrap: anywhere; }
main { display: grid; gap: 1.25rem; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
figure { margin: 0; min-width: 0; }
video, img { background: #8883; border-radius: 4px; display: block; height: auto; width: 100%; }
.failed { align-items: center; background: #c442; border-radius: 4px; display: flex; min-height: 6rem; padding: 1rem; }
figcaption { margin-top: .4rem; overflow-wrap: anywhere; }
small { color: #777; display: block; }
"""


def check_contact_sheet_is_ours(output_folder: Path) -> None:
    """Raises UserError where `index.html` is there and not a contact sheet, for it would be replaced."""
    path = output_folder / CONTACT_SHEET_NAME
    if path.exists() and not (path.is_file() and GENERATOR.encode() in path.read_bytes()):
        raise UserError(f"{path} is not a contact sheet and would be replaced: move it, or give another output_folder")


def write_contact_sheet(path: Path, outcomes: Iterable[Outcome], formats: Iterable[str]) -> None:
    """Write the page for the outcomes, in their order; `formats` of the clips are those that the run asks for."""
    formats = tuple(formats)
    figures = "\n".join(_figure(outcome, path.parent, formats) for outcome in outcomes)
    title = escape(path.resolve().parent.name)
    path.write_text(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{GENERATOR}\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{title}: clips generated from images</h1>\n<main>\n{figures}\n</main>\n</body>\n</html>\n",
        encoding="utf-8",
        errors="replace",
    )


@cache  # the page is written many times
def _figure(outcome: Outcome, folder: Path, formats: tuple[str, ...]) -> str:
    if outcome.record is None:
        shown = f'<div class="failed">{escape(outcome.reason or outcome.status)}</div>'
        return _framed(shown, str(outcome.item.image_path), "failed")
    record = read_record(outcome.record)
    output = record["output"]
    made = f"{output['frames']} frames, {output['width']}x{output['height']}, {output['fps']:g} a second"
    settings = ", ".join(f"{name} {_said(record['parameters'][name])}" for name in SHOWN if _tells(record, name))
    shown = _player(outcome.record, record, folder, formats)
    return _framed(shown, outcome.record.relative_to(folder).with_suffix("").as_posix(), f"{made}; {settings}")


def _framed(shown: str, title: str, details: str) -> str:
    return f"<figure>{shown}<figcaption>{escape(title)}<small>{escape(details)}</small></figcaption></figure>"


def _player(record_path: Path, record: Mapping[str, Any], folder: Path, formats: tuple[str, ...]) -> str:
    paths = clip_paths(record_path.parent, record_path.stem, formats).formats
    links = {name: escape(quote(bytes(path.relative_to(folder)))) for name, path in paths.items()}
    size = f'width="{int(record["output"]["width"])}" height="{int(record["output"]["height"])}"'
    first_frame = f"{links['frames']}/0000.jpg" if "frames" in links else None
    if "mp4" in links:
        first_look = f'preload="none" poster="{first_frame}"' if first_frame else 'preload="metadata"'
        return f'<video src="{links["mp4"]}" {size} {first_look} controls loop muted playsinline></video>'
    picture = links.get("webp") or links.get("gif") or first_frame
    return f'<img src="{picture}" {size} alt="" loading="lazy">'


def _tells(record: Mapping[str, Any], name: str) -> bool:
    if name in ("elevations_deg", "azimuths_deg") and "camera" not in record:
        return False
    return record["parameters"].get(name) is not None


def _said(value: Any) -> str:
    return ",".join(f"{number:g}" for number in value) if isinstance(value, list) else str(value)
