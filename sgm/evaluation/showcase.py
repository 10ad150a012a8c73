"""An animation of a model's clips from the first few held-out inputs, none of them hand-picked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..config import ModelConfig
from ..metrics.likeness import Pictures
from ..storage.files import write_whole
from .camera_moves import Setting, generated_clip, held_out_picture
from .generators import Generate
from .orbits import generated_views, held_out_orbit

TILE_SIZE = 128  # the least size in pixels that a frame is shown at
GAP, CAPTION_HEIGHT = 8, 20
FRAMES_PER_SECOND = 8
MOTIONS = tuple(Setting(motion_bucket_id=bucket, fps_id=6) for bucket in (40, 127, 220))  # little, default, much
FORMATS: dict[str, dict[str, Any]] = {".webp": {"quality": 85, "method": 6}, ".gif": {"optimize": True}}

Strip = Sequence[Pictures]  # stills (H, W, 3) and clips (T, H, W, 3) shown side by side


def orbit_strips(generate: Generate, config: ModelConfig, numbers: Iterable[int]) -> tuple[list[str], list[Strip]]:
    """Captions and strips of held-out objects: the input, the generated orbit, the true one."""
    orbits = (held_out_orbit(number, config) for number in numbers)
    strips: list[Strip] = [[given.views[-1], generated_views(generate, given), given.views] for given in orbits]
    return ["input", "generated", "truth"], strips


def scene_strips(generate: Generate, config: ModelConfig, numbers: Iterable[int]) -> tuple[list[str], list[Strip]]:
    """Captions and strips of held-out pictures: the input, and a clip at each motion strength."""
    strips: list[Strip] = []
    for number in numbers:
        picture = held_out_picture(number, config)
        strips.append([picture, *(generated_clip(generate, number, picture, setting) for setting in MOTIONS)])
    return ["input", *(f"motion {setting.motion_bucket_id}" for setting in MOTIONS)], strips


def draw_animation(captions: Sequence[str], strips: Sequence[Strip], columns: int = 2) -> list[Image.Image]:
    """The frames of a grid with `columns` strips per row, under their captions; all clips have T frames."""
    scale = max(1, -(-TILE_SIZE // strips[0][0].shape[1]))
    num_frames = max(len(tile) for tile in strips[0] if tile.ndim == 4)
    tiles = [[np.broadcast_to(tile, (num_frames, *tile.shape[-3:])) for tile in strip] for strip in strips]
    height, width = (side * scale for side in strips[0][0].shape[:2])
    step_x, step_y = len(captions) * (width + GAP) + 2 * GAP, height + GAP
    rows = -(-len(strips) // columns)
    size = (min(columns, len(strips)) * step_x - GAP, CAPTION_HEIGHT + rows * step_y + GAP)
    frames = []
    for time in range(num_frames):
        frame = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(frame)
        for index, strip in enumerate(tiles):
            row, column = divmod(index, columns)
            for place, (caption, tile) in enumerate(zip(captions, strip, strict=True)):
                left = GAP + column * step_x + place * (width + GAP)
                if row == 0:
                    centre = (left + width / 2, CAPTION_HEIGHT / 2)
                    draw.text(centre, caption, fill="black", anchor="mm", font=ImageFont.load_default(14))
                pixels = Image.fromarray((tile[time] * 255).round().astype(np.uint8))
                picture = pixels.resize((width, height), Image.Resampling.BICUBIC)
                frame.paste(picture, (left, CAPTION_HEIGHT + row * step_y))
        frames.append(frame)
    return frames


def save_animation(frames: Sequence[Image.Image], path: Path) -> None:
    """Save as a looping animation, in the format of the path's suffix, one of `FORMATS`."""
    options = FORMATS[path.suffix.lower()]
    duration_ms = round(1000 / FRAMES_PER_SECOND)
    write_whole(
        path,
        lambda aside: frames[0].save(
            aside, path.suffix[1:], save_all=True, append_images=frames[1:], duration=duration_ms, loop=0, **options
        ),
    )
