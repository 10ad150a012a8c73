"""Frames to H.264 video, and video back to frames.

The settings are chosen so that the watermark, which lives in the colour of 2x2 pixels, survives compression: by default
a constant rate factor of 16, colour quantised six steps finer than brightness, colour of 2x2 pixels averaged (`area`)
rather than interpolated. Brightness at that rate factor is visually lossless.
"""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sgm.errors import UserError
from sgm.outputs.provenance import Provenance

Frame = NDArray[np.uint8]  # (H, W, 3), RGB

_RGB_TO_YUV = "scale=out_color_matrix=bt709:out_range=tv:flags=area+accurate_rnd+full_chroma_inp"
_YUV_TO_RGB = "scale=out_range=pc:flags=bicubic+accurate_rnd+full_chroma_int"  # the matrix is the one the file names
_COLOUR_TAGS = "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv"
# What FFmpeg says about file systems in words alone.
_OF_FILES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
_ENCODER = ["-c:v", "libx264", "-preset", "medium", "-x264-params", "chroma-qp-offset=-6"]


def write_video(path: Path, frames: Iterable[Frame], fps: float, quality: int, provenance: Provenance) -> None:
    """Write a whole video, frame by frame: see `video_writer`."""
    with video_writer(path, fps, quality, provenance) as write:
        for frame in frames:
            write(frame)


@contextmanager
def video_writer(path: Path, fps: float, quality: int, provenance: Provenance) -> Iterator[Callable[[Frame], None]]:
    """An MP4 that browsers play: H.264, yuv420p, BT.709 colours, index first. An existing file is replaced.

    Gives the function that takes its frames, at least one, uint8 (H, W, 3) in RGB, all of one size.
    fps: frames per second, above 0. quality: 1 to 100, see `constant_rate_factor`.
    4:2:0 colour needs even sides, so an odd side becomes longer by one pixel: its last row or column is shown twice.
    Raises OSError with the encoder's own words where it fails, as on a full disk.
    """
    if not 0 < fps < float("inf"):
        raise UserError(f"fps is {fps:g}, but must be above 0: give the frames to show in a second, such as 6")
    with ExitStack() as stack:
        encoder: subprocess.Popen[bytes] | None = None
        shape: tuple[int, ...] = ()

        def write(frame: Frame) -> None:
            nonlocal encoder, shape
            frame = _with_even_sides(frame)
            if encoder is None:
                shape = frame.shape
                encoder = stack.enter_context(_encoder(path, shape, fps, quality, provenance))
            assert frame.shape == shape, f"a video's frames have one size, not {shape} and {frame.shape}"
            assert encoder.stdin is not None
            try:
                encoder.stdin.write(np.ascontiguousarray(frame).data)
            except BrokenPipeError:
                raise _EncoderEndedError from None

        yield write
        assert encoder is not None, "a video needs at least one frame"
        assert encoder.stdin is not None
        with suppress(BrokenPipeError):
            encoder.stdin.close()


class _EncoderEndedError(Exception):
    """The encoder takes no more frames; why, it says itself."""


def _encoder(
    path: Path, shape: tuple[int, ...], fps: float, quality: int, provenance: Provenance
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """FFmpeg that takes frames of even sides on its stdin."""
    height, width = shape[:2]
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-framerate", repr(float(fps))]
    filters = ["-vf", f"{_RGB_TO_YUV},format=yuv420p,{_COLOUR_TAGS}"]
    encoder = [*_ENCODER, "-crf", f"{constant_rate_factor(quality):g}"]
    said = {"comment": provenance.comment, "encoding_tool": provenance.software}
    metadata = [word for name, text in said.items() for word in ("-metadata", f"{name}={text}")]
    target = ["-movflags", "+faststart", "-f", "mp4", f"file:{path}"]  # "file:" keeps odd names from being addresses
    arguments = ["-y", *source, "-i", "pipe:0", *filters, *encoder, *metadata, *target]
    return _ffmpeg(arguments, f"can't write {path}", stdin=subprocess.PIPE)


def constant_rate_factor(quality: int) -> float:
    """x264's rate factor for a quality from 1 to 100: a line through what both scales take for usual and for fine.

    75 is the usual quality of JPEG and WebP and 23 x264's usual factor; 95 and 16 are this project's own.
    """
    return 23 + (75 - quality) * (23 - 16) / (95 - 75)


def read_frames(path: Path) -> Iterator[Frame]:
    """The frames of a video one by one, uint8 (H, W, 3) in RGB; OSError where it is missing or can't be decoded."""
    target = ["-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "ppm", "pipe:1"]
    arguments = ["-i", f"file:{path}", "-vf", _YUV_TO_RGB, *target]
    with _ffmpeg(arguments, f"can't read {path}", stdout=subprocess.PIPE) as decoder:
        pictures = decoder.stdout
        assert pictures is not None
        while pictures.readline():  # P6, then width and height, then 255
            width, height = (int(side) for side in pictures.readline().split())
            pictures.readline()
            pixels = pictures.read(height * width * 3)
            if len(pixels) < height * width * 3:
                break  # the decoder has failed, and says why
            yield np.frombuffer(pixels, np.uint8).reshape(height, width, 3)


def read_video(path: Path) -> NDArray[np.uint8]:
    """All frames of a video, uint8 (T, H, W, 3); errors are those of `read_frames`."""
    return np.stack(list(read_frames(path)))


def _with_even_sides(frame: Frame) -> Frame:
    assert frame.dtype == np.uint8, f"frames must be uint8, not {frame.dtype}"
    assert frame.ndim == 3, f"frames must be (H, W, 3), not {frame.shape}"
    assert frame.shape[2] == 3, f"frames must be (H, W, 3), not {frame.shape}"
    assert frame.size > 0, f"frames must not be empty: {frame.shape}"
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


@contextmanager
def _ffmpeg(
    arguments: list[str], failure: str, *, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """FFmpeg at work; OSError where it failed: `failure`, FFmpeg's words, and their errno if any.

    Not imageio's plugins: its writer over FFmpeg takes a full disk for success and its reader leaves pipes open; those
    over PyAV have no rate factor, no colour tags, no index first, and read colours levels off.
    """
    from imageio_ffmpeg import get_ffmpeg_exe

    command = [get_ffmpeg_exe(), "-v", "error", *arguments]
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=said) as process:
            try:
                yield process
            except _EncoderEndedError:
                pass
            except BaseException:
                process.kill()  # a shorter video than was asked for is none
                if process.stdin is not None:
                    with suppress(BrokenPipeError):
                        process.stdin.close()
                raise
        if process.returncode != 0:
            said.seek(0)
            words = "; ".join(said.read().decode(errors="replace").splitlines())
            error = OSError(f"{failure}: {words or f'FFmpeg ended with code {process.returncode}'}")
            error.errno = next((code for code in _OF_FILES if os.strerror(code) in words), None)
            raise error
