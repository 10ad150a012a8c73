"""The weights that a run needs: the version's own, and those that read text or make frames between others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..checkpoint.files import Checkpoint
from ..checkpoint.finding import add_text, find_checkpoint
from ..checkpoint.interpolators import find_interpolator
from ..errors import UserError
from ..parameters.request import Request
from ..parameters.sampling import SamplingSettings


def find_weights(request: Request, clips: Iterable[SamplingSettings]) -> Checkpoint:
    """The weights for clips of these settings, found as the request says. Raises UserError where some are missing."""
    interpolator = None
    if any(settings.finishing.needs_weights for settings in clips):
        interpolator = find_interpolator(request.interpolator_weights)  # first, since the others may be downloaded
    elif request.interpolator_weights is not None:
        raise UserError("interpolator_weights is for interpolator ema_vfi: add that, or omit interpolator_weights")
    found = find_checkpoint(request.version, request.checkpoint, download=request.download)
    if request.text_adapter is not None:
        found = add_text(found, request.text_adapter, request.model.text, download=request.download)
    return replace(found, interpolator=interpolator)
