"""The weights that a run needs: the version's own, and where its clips need them, those that interpolate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..checkpoint.files import Checkpoint
from ..checkpoint.finding import find_checkpoint
from ..checkpoint.interpolators import find_interpolator
from ..errors import UserError
from ..parameters.request import Request
from ..parameters.sampling import SamplingSettings


def find_weights(request: Request, clips: Iterable[SamplingSettings]) -> Checkpoint:
    """The weights for clips of these settings, found as the request says. Raises UserError where some are missing."""
    if not any(settings.finishing.needs_weights for settings in clips):
        if request.interpolator_weights is not None:
            raise UserError("interpolator_weights is for interpolator ema_vfi: add that, or omit interpolator_weights")
        return find_checkpoint(request.version, request.checkpoint, download=request.download)
    interpolator = find_interpolator(request.interpolator_weights)  # first, since the other may be downloaded
    checkpoint = find_checkpoint(request.version, request.checkpoint, download=request.download)
    return replace(checkpoint, interpolator=interpolator)
