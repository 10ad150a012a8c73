"""From a clip's latents to its frames, within the available memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from ..errors import is_out_of_memory
from ..models.streaming import decode_streaming
from ..models.vae import Autoencoder
from ..runtime.devices import give_back_memory


def decode(
    autoencoder: Autoencoder,
    latents: Tensor,
    *,
    chunk: int,
    at_once: int,
    keep_on_device: bool,
    advance: Callable[[int], object],
    warn: Callable[[str], object],
) -> Iterator[Tensor]:
    """The frames of one clip's scaled latents (t, c, h, w), chunk after chunk: (n, 3, H, W), about [-1, 1], on the CPU.

    Args:
        autoencoder: with its decoder's weights on the latents' device.
        latents: the clip.
        chunk: how many frames are decoded with knowledge of each other; chunks are independent.
        at_once: how many of these are computed at a time. Fewer than a chunk are computed layer by layer, with the same
            result; when memory runs out, their number is halved.
        keep_on_device: whether what is kept between layers stays on the device, until memory runs out there.
        advance: called with the number of frames just finished.
        warn: called with a one-line message when memory runs out.
    """
    for part in latents.split(chunk):
        while True:
            try:
                frames = _decode_chunk(autoencoder, part, at_once, keep_on_device).cpu()
                break
            except (RuntimeError, MemoryError) as error:
                at_once = min(at_once, len(part))
                if not is_out_of_memory(error) or (at_once == 1 and not keep_on_device):
                    raise
            # Outside the handler the error is gone, and with it the failed attempt's hold on its memory.
            tried, at_once, keep_on_device = at_once, max(at_once // 2, 1), False
            warn(f"warning: out of memory decoding {tried} frames at a time; now {at_once}, with the same result")
            give_back_memory(latents.device)
        advance(len(part))
        yield frames


def _decode_chunk(autoencoder: Autoencoder, latents: Tensor, at_once: int, keep_on_device: bool) -> Tensor:
    if at_once >= len(latents):
        return autoencoder.decode(latents, len(latents))
    return decode_streaming(autoencoder, latents, at_once, latents.device if keep_on_device else "cpu")
