"""Decoding that runs out of memory, by a decoder that refuses more than so many frames."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sgm.generation.frames import ChunkDecoder
from sgm.models.vae import Autoencoder, ResBlock
from tests.small_models import deterministic_model, read_golden, relative_error, with_small_tower

LATENTS = torch.randn(7, 4, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def autoencoder() -> Autoencoder:
    return deterministic_model(with_small_tower(read_golden("svd").config)).first_stage


@pytest.fixture
def limit(autoencoder: Autoencoder, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """After `limit(n)` more than n frames do not fit."""

    def set_limit(frames: int) -> None:
        forward = ResBlock.forward

        def limited(self: ResBlock, x: Tensor, num_frames: int) -> Tensor:
            if len(x) > frames:
                raise torch.OutOfMemoryError("CUDA out of memory (by a test)")
            return forward(self, x, num_frames)

        monkeypatch.setattr(ResBlock, "forward", limited)

    return set_limit


@torch.inference_mode()
def run(autoencoder: Autoencoder, chunk: int, at_once: int) -> tuple[Tensor, list[str]]:
    warnings: list[str] = []
    decoder = ChunkDecoder(autoencoder, at_once, keep_on_device=True, warn=warnings.append)
    return torch.cat([decoder(part) for part in LATENTS.split(chunk)]), warnings


def test_chunks_are_decoded_by_themselves(autoencoder: Autoencoder) -> None:
    frames, warnings = run(autoencoder, chunk=3, at_once=3)
    assert warnings == []
    for start, end in ((0, 3), (3, 6), (6, 7)):
        alone = autoencoder.decode(LATENTS[start:end], end - start)
        torch.testing.assert_close(frames[start:end], alone)


def test_fewer_frames_at_once_give_the_same(autoencoder: Autoencoder) -> None:
    for chunk in (3, 7):
        whole, _ = run(autoencoder, chunk, at_once=chunk)
        parts, _ = run(autoencoder, chunk, at_once=2)
        assert relative_error(parts, whole) < 1e-5


def test_out_of_memory_fewer_are_tried(autoencoder: Autoencoder, limit: Callable[[int], None]) -> None:
    expected, _ = run(autoencoder, chunk=7, at_once=7)
    limit(2)
    frames, warnings = run(autoencoder, chunk=7, at_once=14)
    assert relative_error(frames, expected) < 1e-5
    assert warnings == [
        "warning: out of memory decoding 7 frames at a time; now 3, with the same result",
        "warning: out of memory decoding 3 frames at a time; now 1, with the same result",
    ]


def test_what_is_learned_holds_for_the_next_chunks(autoencoder: Autoencoder, limit: Callable[[int], None]) -> None:
    limit(2)
    _, warnings = run(autoencoder, chunk=3, at_once=3)
    assert len(warnings) == 1


def test_where_one_frame_does_not_fit_it_is_raised(autoencoder: Autoencoder, limit: Callable[[int], None]) -> None:
    limit(0)
    with pytest.raises(torch.OutOfMemoryError):
        run(autoencoder, chunk=7, at_once=7)


def test_other_errors_are_not_taken_for_it(autoencoder: Autoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Tensor:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(ResBlock, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(autoencoder, chunk=7, at_once=7)
