"""Training of CLIP's image tower to predict, from a picture, how the camera will move.

The released models' tower learned from captions what a picture shows, before any video model was trained, and stays
frozen after that. In a scene, what the UNet must know and can hardly find out by itself is how the camera moves: the
motion follows from the whole picture at once, and the denoising loss gives little incentive to look for it.
"""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.camera_moves import Layer, Motion, camera_motion
from ..data.clips import to_tensor, training_clip
from ..models.video_model import VideoModel
from .config import TrainingConfig

# In a sheet's clips the picture moves by this share of its width per frame.
SHEET_DISPLACEMENT = 0.01


class ImageTowerObjective:
    """Mean squared error of the embedding's first four numbers against the camera's motion, of mean displacement 1.

    Every picture is seen both as it is and mirrored.
    """

    def __init__(self, model: VideoModel, config: TrainingConfig, device: torch.device):
        self.model, self.config, self.device = model, config, device
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("conditioner.clip."))
        self._kept: dict[int, tuple[NDArray[np.uint8], Motion]] = {}

    def __call__(self, step: int) -> Tensor:
        """The loss of a step, a scalar."""
        config = self.config
        rng = np.random.Generator(np.random.PCG64([config.seed, step]))
        pictures, motions = [], []
        for number in rng.integers(config.num_clips, size=config.batch_size).tolist():
            picture, motion = self._picture(number)
            mirrored = rng.uniform() < 0.5
            pictures.append(picture[:, ::-1] if mirrored else picture)
            motions.append(astuple(motion.mirrored() if mirrored else motion))
        return (self.predict(np.stack(pictures)) - torch.tensor(motions, device=self.device)).square().mean()

    def predict(self, pictures: NDArray[np.uint8]) -> Tensor:
        """The motions (n, 4), in the order of `Motion`, that the tower predicts from pictures (n, size, size, 3)."""
        embedding: Tensor = self.model.conditioner.clip(to_tensor(pictures).to(self.device))
        return embedding[:, :4]

    @torch.no_grad()
    def sheet(self) -> Tensor:
        """Pictures moving as they should, alternating with the tower's predictions: (4, frames, 3, size, size).

        No step trains on these pictures. The values are in [-1, 1].
        """
        rows = []
        for number in range(2):
            picture, motion = self._render(2**31 + number)
            predicted = Motion(*self.predict(picture[None])[0].tolist())
            layer = Layer((to_tensor(picture[None])[0] + 1) / 2, 0.5, 0.5)
            for seen in (motion, predicted):
                seen = seen.scaled(SHEET_DISPLACEMENT)
                rows.append(layer.frames(seen, SHEET_DISPLACEMENT, self.model.config.num_frames, self.config.size))
        return torch.stack(rows) * 2 - 1

    def _picture(self, number: int) -> tuple[NDArray[np.uint8], Motion]:
        if number not in self._kept:
            self._kept[number] = self._render(number)
        return self._kept[number]

    def _render(self, number: int) -> tuple[NDArray[np.uint8], Motion]:
        config = self.config
        (picture,) = training_clip(config.data, number, config.size, self.model.config, config.seed).frames
        return picture, camera_motion((to_tensor(picture[None])[0] + 1) / 2, displacement=1.0)
