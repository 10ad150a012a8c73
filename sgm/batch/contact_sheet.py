"""`index.html`: all clips of an output folder on one page, playing, each with its settings. It needs no other files.

Whatever comes from files or users is escaped: a name is text here, never markup, and a link never leaves the folder.
The page's own script, which plays what is in view, is the only one that its policy lets a browser run.
"""

from __future__ import annotations

import hashlib
import os
import stat
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..config import RELEASES, load_config
from ..errors import UserError
from ..outputs.clip_files import FORMATS, clip_paths
from ..outputs.publishing import CONTACT_SHEET_NAME, REPORT_NAME
from ..outputs.record import read_record
from ..parameters.sampling import ignored_parameters
from .outcome import Outcome

GENERATOR = '<meta name="generator" content="sgm contact sheet">'
SHOWN = ("version", "prompt", "seed", "motion_bucket_id", "fps_id", "cond_aug", "preset", "num_steps", "schedule",
         "sampler", "guidance_interval", "cache_interval", "decode", "elevations_deg", "azimuths_deg",
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
# Playing only what is in view keeps a page of thousands of clips light; some people ask their system for stillness.
SCRIPT = """
const inView = new IntersectionObserver(entries => {
  for (const {isIntersecting, target} of entries) isIntersecting ? target.play().catch(() => {}) : target.pause();
});
if (!matchMedia("(prefers-reduced-motion: reduce)").matches)
  document.querySelectorAll("video").forEach(video => inView.observe(video));
"""
HASH = b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
POLICY = f"script-src 'sha256-{HASH}'; object-src 'none'; base-uri 'none'; form-action 'none'"


def check_contact_sheet_is_ours(output_folder: Path) -> None:
    """Raises UserError where `index.html` is there and not a contact sheet, for it would be replaced."""
    path = output_folder / CONTACT_SHEET_NAME
    if path.exists() and not (path.is_file() and GENERATOR.encode() in path.read_bytes()):
        raise UserError(f"{path} is not a contact sheet and would be replaced: move it, or give another output_folder")


def write_contact_sheet(path: Path, folder: Path, outcomes: Iterable[Outcome]) -> None:
    """Write the page for all clips in a folder and below, by name, then what failed among the outcomes."""
    figures = [_framed_failure(outcome) for outcome in outcomes if outcome.status == "failed"]
    figures[:0] = [figure for main, figure in _figures(folder) if main.exists()]
    title = escape(folder.resolve().name)
    path.write_text(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{GENERATOR}\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{title}: clips generated from images</h1>\n<main>\n{chr(10).join(figures)}\n</main>\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n",
        encoding="utf-8",
        errors="replace",
    )


def _figures(folder: Path) -> Iterator[tuple[Path, str]]:
    """The main file of every clip in a folder and below, with its figure, by name."""
    records = []
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        records += [Path(parent, name) for name in names if name.endswith(".json") and name != REPORT_NAME]
    for path in sorted(records, key=lambda path: path.with_suffix("").parts):
        try:
            status = path.lstat()
        except OSError:  # moved meanwhile
            continue
        if stat.S_ISREG(status.st_mode):
            figure = _figure(path, folder, status.st_size, status.st_mtime_ns)
            if figure is not None:
                yield figure


@cache  # the page is written many times
def _figure(record_path: Path, folder: Path, size: int, modified_ns: int) -> tuple[Path, str] | None:
    """A clip's main file and its figure; None for another program's JSON. Size and time tell contents apart."""
    try:
        record = read_record(record_path)
    except UserError:
        return None
    recorded = record["output"].get("formats", ())
    paths = clip_paths(record_path.parent, record_path.stem, [name for name in FORMATS if name in recorded])
    if not paths.formats:
        return None
    output = record["output"]
    made = f"{output['frames']} frames, {output['width']}x{output['height']}, {output['fps']:g} a second"
    settings = ", ".join(f"{name} {_said(value)}" for name, value in _settings(record["parameters"]))
    title = record_path.relative_to(folder).with_suffix("").as_posix()
    return paths.main, _framed(_player(paths.formats, output, folder), title, f"{made}; {settings}")


def _framed_failure(outcome: Outcome) -> str:
    return _framed(f'<div class="failed">{escape(outcome.reason or "")}</div>', str(outcome.item.image_path), "failed")


def _framed(shown: str, title: str, details: str) -> str:
    return f"<figure>{shown}<figcaption>{escape(title)}<small>{escape(details)}</small></figcaption></figure>"


def _player(paths: Mapping[str, Path], output: Mapping[str, Any], folder: Path) -> str:
    links = {name: escape(quote(bytes(path.relative_to(folder)))) for name, path in paths.items()}
    size = f'width="{int(output["width"])}" height="{int(output["height"])}"'
    first_frame = f"{links['frames']}/0000.jpg" if "frames" in links else None
    if "mp4" in links:
        first_look = f'preload="none" poster="{first_frame}"' if first_frame else 'preload="metadata"'
        return f'<video src="{links["mp4"]}" {size} {first_look} controls loop muted playsinline></video>'
    picture = links.get("webp") or links.get("gif") or first_frame
    return f'<img src="{picture}" {size} alt="" loading="lazy">'


def _settings(parameters: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Those parameters that say how a clip was made; what its version ignores says nothing."""
    ignored = _ignored(parameters.get("version"))
    for name in SHOWN:
        if name not in ignored and parameters.get(name) is not None:
            yield name, parameters[name]


@cache
def _ignored(version: str | None) -> frozenset[str]:
    return frozenset(ignored_parameters(load_config(version))) if version in RELEASES else frozenset()


def _said(value: Any) -> str:
    return ",".join(f"{number:g}" for number in value) if isinstance(value, list) else str(value)
