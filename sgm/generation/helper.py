"""A process that helps another one to make clips, on a device of its own (see `sgm.runtime.parallel`).

It is started by `load_generators`. It writes no file and says nothing: what fails here is raised there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from ..models.conditioner import Conditioning
from ..progress import Progress
from ..runtime.devices import choose_device, give_back_memory
from ..runtime.parallel import Ranks, help_out
from .denoiser import Solver
from .frames import FrameGenerator
from .loading import Loading, load_generator


class Helper:
    """Carries out the orders of the process that it helps, with that process and the other helpers."""

    def __init__(self, device: str):
        self.device = choose_device(device)
        self._generator: FrameGenerator | None = None

    @property
    def generator(self) -> FrameGenerator:
        """The loaded model."""
        assert self._generator is not None
        return self._generator

    def load(self, ranks: Ranks, loading: Loading, threads: int) -> None:
        """Load the model; with the same number of threads sums are rounded alike."""
        torch.set_num_threads(threads)
        self._generator = load_generator(loading, self.device, Silent(), ranks)

    @torch.inference_mode()
    def sample(self, _: Ranks, conditioning: Conditioning, noise: Tensor, solver: Solver) -> None:
        """Take part in the sampling of clips."""
        give_back_memory(self.device)
        self.generator.sample_from(conditioning, noise, solver)

    @torch.inference_mode()
    def decode(self, _: Ranks, chunks: Sequence[Tensor], at_once: int) -> None:
        """Take part in the decoding of chunks."""
        give_back_memory(self.device)
        self.generator.decode_chunks(chunks, self.generator.chunk_decoder(at_once))


class Silent(Progress):
    """No bars, and no lines either: the process that is helped says the same."""

    def __init__(self) -> None:
        super().__init__(quiet=True)

    def say(self, text: str) -> None:
        """Nothing."""


def main(words: Sequence[str]) -> NoReturn:
    """Help until the other process ends."""
    *place, device = words
    helper = Helper(device)
    help_out(place, {"load": helper.load, "sample": helper.sample, "decode": helper.decode})


if __name__ == "__main__":
    main(sys.argv[1:])
