"""Frames to H.264 video, and video back to frames.

The settings are chosen so that the watermark, which lives in the colour of 2x2 pixels, survives compression: by default
a constant rate factor of 16, colour quantised six steps finer than brightness, colour of 2x2 pixels averaged (`area`)
rather than interpolated. Brightness at that rate factor is visually lossless.
"""

import errno
import os
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sgm.errors import UserError
from sgm.outputs.provenance import Provenance

_RGB_TO_YUV = "scale=out_color_matrix=bt709:out_range=tv:flags=area+accurate_rnd+full_chroma_inp"
_YUV_TO_RGB = "scale=out_range=pc:flags=bicubic+accurate_rnd+full_chroma_int"  # the matrix is the one the file names
_COLOUR_TAGS = "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv"
# What FFmpeg tells of file systems in words alone.
_OF_FILES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
_ENCODER = ["-c:v", "libx264", "-preset", "medium", "-x264-params", "chroma-qp-offset=-6"]


def write_video(path: Path, frames: NDArray[np.uint8], fps: float, quality: int, provenance: Provenance) -> None:
    """Write an MP4 that browsers play: H.264, yuv420p, BT.709 colours, index first. An existing file is replaced.

    frames: uint8 (T, H, W, 3), RGB. fps: frames a second, above 0. quality: 1 to 100, see `constant_rate_factor`.
    4:2:0 colour needs even sides, so an odd side is made longer by one pixel: its last row or column is shown twice.
    Raises OSError with the encoder's own words where it fails, as on a full disk.
    """
    _check_frames(frames)
    if not 0 < fps < float("inf"):
        raise UserError(f"fps is {fps:g}, but must be above 0: give the frames to show in a second, such as 6")
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    height, width = frames.shape[1:3]
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-framerate", repr(float(fps))]
    filters = ["-vf", f"{_RGB_TO_YUV},format=yuv420p,{_COLOUR_TAGS}"]
    encoder = [*_ENCODER, "-crf", f"{constant_rate_factor(quality):g}"]
    said = {"comment": provenance.comment, "encoding_tool": provenance.software}
    metadata = [word for name, text in said.items() for word in ("-metadata", f"{name}={text}")]
    target = ["-movflags", "+faststart", "-f", "mp4", f"file:{path}"]  # "file:" keeps odd names from being addresses
    arguments = ["-y", *source, "-i", "pipe:0", *filters, *encoder, *metadata, *target]
    _ffmpeg(arguments, frames.tobytes(), f"can't write {path}")


def constant_rate_factor(quality: int) -> float:
    """x264's rate factor for a quality from 1 to 100: a line through what both scales take for usual and for fine.

    75 is the usual quality of JPEG and WebP and 23 x264's usual factor; 95 and 16 are this project's own.
    """
    return 23 + (75 - quality) * (23 - 16) / (95 - 75)


def read_video(path: Path) -> NDArray[np.uint8]:
    """All frames of a video as uint8 (T, H, W, 3), RGB; OSError where the file is missing or can't be decoded."""
    target = ["-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "ppm", "pipe:1"]
    pictures = _ffmpeg(["-i", f"file:{path}", "-vf", _YUV_TO_RGB, *target], b"", f"can't read {path}")
    header = b"".join(pictures[:64].splitlines(keepends=True)[:3])  # P6, width and height, 255: the same for each frame
    width, height = (int(side) for side in header.split()[1:3])
    rows = np.frombuffer(pictures, np.uint8).reshape(-1, len(header) + height * width * 3)
    return rows[:, len(header) :].reshape(-1, height, width, 3)


def _ffmpeg(arguments: list[str], stdin: bytes, failure: str) -> bytes:
    """What FFmpeg writes to stdout; OSError where it fails: `failure`, FFmpeg's words, and their errno if any."""
    from imageio_ffmpeg import get_ffmpeg_exe

    done = subprocess.run([get_ffmpeg_exe(), "-v", "error", *arguments], input=stdin, capture_output=True, check=False)
    if done.returncode != 0:
        words = "; ".join(done.stderr.decode(errors="replace").splitlines())
        error = OSError(f"{failure}: {words or f'the encoder ended with code {done.returncode}'}")
        error.errno = next((code for code in _OF_FILES if os.strerror(code) in words), None)
        raise error
    return done.stdout


def _check_frames(frames: NDArray[np.uint8]) -> None:
    assert frames.dtype == np.uint8, f"frames must be uint8, not {frames.dtype}"
    assert frames.ndim == 4, f"frames must be (T, H, W, 3), not {frames.shape}"
    assert frames.shape[3] == 3, f"frames must be (T, H, W, 3), not {frames.shape}"
    assert frames.size > 0, f"frames must not be empty: {frames.shape}"
