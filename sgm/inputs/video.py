"""A video's first frame, by FFmpeg itself: imageio's plugin for it leaves pipes open where a file is no video."""

from __future__ import annotations

import re
import subprocess
from io import BytesIO
from pathlib import Path

from PIL import Image

from sgm.inputs.coded_colours import HEAD_BYTES, coded_profile

SECONDS_FOR_A_FRAME = 60.0
MATRIX = re.compile(r" s:(\d+)x(\d+) .*?color_space:(\w+)", re.DOTALL)  # as the filter `showinfo` says it


def first_frame(path: Path, max_pixels: int) -> Image.Image:
    """The first frame, RGB, turned as the camera notes.

    HD that doesn't say how its colours are coded counts as BT.709, as in players; FFmpeg takes all for BT.601.

    Raises ValueError in FFmpeg's words for what is no video or over `max_pixels`, TimeoutError.
    """
    done = _decoded(path, max_pixels)
    shown = MATRIX.search(done.stderr.decode(errors="replace"))
    if shown and shown[3] == "unknown" and _is_hd(int(shown[1]), int(shown[2])):
        done = _decoded(path, max_pixels, matrix="bt709")
    if done.returncode != 0 or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ValueError(said[-1] if said else "it has no picture")
    with Image.open(BytesIO(done.stdout), formats=["PNG"]) as frame:
        frame.load()
        frame.info.pop("gamma", None)  # FFmpeg's guess of video's curve, which screens show as sRGB's
        if profile := coded_profile(frame, done.stdout[:HEAD_BYTES]):
            frame.info["icc_profile"] = profile
        return frame


def _decoded(path: Path, max_pixels: int, matrix: str = "auto") -> subprocess.CompletedProcess[bytes]:
    """FFmpeg's answer: a PNG on stdout, and what it says of the frame on stderr."""
    from imageio_ffmpeg import get_ffmpeg_exe

    full_colour = f"scale=in_color_matrix={matrix}:out_range=pc:flags=bicubic+accurate_rnd+full_chroma_int"
    only_the_file = ["-protocol_whitelist", "file", "-format_whitelist", "mov,matroska,avi"]  # no lists of other files
    command = [get_ffmpeg_exe(), "-hide_banner", "-nostats", *only_the_file, "-max_pixels", str(max_pixels)]
    command += ["-i", f"file:{path}", "-frames:v", "1", "-vf", f"showinfo=checksum=0,{full_colour}"]
    command += ["-f", "image2pipe", "-c:v", "png", "pipe:1"]
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS_FOR_A_FRAME)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"its first frame takes over {SECONDS_FOR_A_FRAME:g} seconds to decode") from None


def _is_hd(width: int, height: int) -> bool:
    """Whether a picture, upright or lying, is larger than television was before HD: mpv's rule."""
    return max(width, height) >= 1280 or min(width, height) > 576
