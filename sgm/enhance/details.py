"""The input picture's details, carried through a clip that was made from it.

A generated clip knows the motion; the picture that it was made from knows the details. Where a frame shows what the
picture shows, the picture itself is seen through the frame's flow, in the frame's tones. What the picture lacks is
carried from frame to frame, as sharp as the picture lets one judge. Where neither holds, the clip remains.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from .tracking import Array, Follower, Pixels, blurred, inside, resized, warped

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue: ITU-R BT.601
SPARSE = 3  # every third row and column tell as much of an error that is broad
QUARTERS = 4  # sizes go in quarters of the clip's, which keep its aspect and, its sides being multiples of 8, are even

# Lengths are in pixels of the followed picture, which has about twice the clip's own sides.
TONE = 6.0  # what is broader is the clip's, what is finer the picture's
REACH = 4.0  # around a pixel, over which a frame is compared with what is carried to it
EDGE = 1.0  # beyond the picture's edge, over which trust ends
SOFT = 3.0  # the transition from what is trusted to what isn't
BANDS = (1.0, 2.0, 4.0)  # blurs between which the clip's sharpness is judged

# What is carried is trusted while what it leaves unexplained, as a mean square, is less than these parts of what is
# unexplained everywhere and of its own contrast, and so many levels.
OF_NOISE, OF_CONTRAST, LEAST_ERROR = 3.0, 0.4, 2.0
PAST_ERROR = 0.5  # how far trust also depends on the frames before, so that it doesn't flicker
FROM_BEFORE = 0.7  # how much is taken from the frame before, where it agrees
NEW_TONE, CLEAR_CHANGE = 0.25, 4.0  # how much of a change of tone counts at once: of a small one; levels of a large one
MOST_GAIN = 3.0
ENOUGH_TO_JUDGE = 0.1  # of the frame: what must be trusted for the clip's sharpness to be judged by it


def enlarged_size(size: tuple[int, int], image_size: tuple[int, int], times: float) -> tuple[int, int]:
    """The (width, height) of a clip of `size` with an image's details: up to `times` as wide, of the same aspect.

    Never larger than the part of the image that the clip shows, unless the clip itself is.
    """
    most = min(times, image_size[0] / size[0], image_size[1] / size[1])
    quarters = max(math.floor(most * QUARTERS), QUARTERS)
    return size[0] * quarters // QUARTERS, size[1] * quarters // QUARTERS


def carry_details(chunks: Iterable[Pixels], picture: Pixels) -> Iterator[Pixels]:
    """A clip with its input's details, chunk by chunk, as it comes.

    Args:
        chunks: the clip's frames, uint8 (n, h, w, 3) RGB, in order.
        picture: what the clip was made from, cropped to what it shows, uint8 (H, W, 3) RGB in the size of the result
            (see `enlarged_size`).

    Yields:
        For each chunk the frames uint8 (n, H, W, 3). Each depends on those before it alone, and a few pictures are all
        that is kept, however long the clip is.
    """
    carrier: DetailCarrier | None = None
    for chunk in chunks:
        carrier = carrier or DetailCarrier(picture, (chunk.shape[2], chunk.shape[1]))
        yield np.stack([carrier.enhance(frame) for frame in chunk])


class Match(NamedTuple):
    """How what is carried matches a frame.

    tone: (H, W, 3), what broad difference there is. errors: (H, W), the mean squares of the rest. limit: (H, W), the
    errors that are half trusted. trust: (H, W), from 0 to 1.
    """

    tone: Array
    errors: Array
    limit: Array
    trust: Array


class DetailCarrier:
    """Carries a picture's details into the frames of a clip, one after the other."""

    def __init__(self, picture: Pixels, clip_size: tuple[int, int]) -> None:
        self.size = picture.shape[1], picture.shape[0]
        assert self.size[0] >= clip_size[0], (self.size, clip_size)
        self._picture = picture.astype(np.float32)
        self._follower = Follower(self._picture @ LUMINANCE, clip_size)
        self._scale = self.size[0] / self._follower.size[0]
        self._forget()

    def _forget(self) -> None:
        self._before: Array | None = None  # the frame before as enhanced, its errors and its tone
        self._errors: Array | None = None
        self._tone: Array | None = None

    def enhance(self, frame: Pixels) -> Pixels:
        """The next frame, uint8 (h, w, 3), with the picture's details and in its size."""
        plain = resized(frame, self.size)
        sight = self._follower.follow(plain @ LUMINANCE)
        if sight is None:  # after a cut, say
            self._forget()
            return _to_bytes(plain)
        flow, step = (resized(way, self.size) * self._scale for way in (sight.flow, sight.step))
        blur = sight.blur * self._scale

        carried = warped(self._picture, flow, sharp=True)
        within = inside(flow, EDGE * self._scale) * resized(sight.whole, self.size)
        match = self._match(plain, blurred(carried, blur), within, step)
        tone = self._steadied(match.tone, step)
        blinking = ((tone - match.tone) * match.trust[..., None]).mean((0, 1)) / (match.trust.mean() + 1e-3)
        rest = self._restored(plain, carried + match.tone, match.trust)
        if self._before is not None:
            rest = self._drawn_to_before(rest, plain, step, blur, match.limit)
        rest += blinking
        result = rest + (carried + tone - rest) * match.trust[..., None]
        self._before, self._errors, self._tone = result, match.errors, tone
        return _to_bytes(result)

    def _match(self, plain: Array, dulled: Array, within: Array, step: Array) -> Match:
        """How what is carried, dulled as the clip is, matches a frame, within where anything is carried."""
        difference = plain - dulled
        contrast = self._error(dulled - self._broad(dulled))
        errors = self._error(difference - self._broad(difference, within))
        # Once more, with the tone of what is trusted alone: a subject's colours don't spread over the scene.
        tone = self._broad(difference, within * _trusted(errors, self._limit(errors, contrast, within)))
        errors = self._error(difference - tone)
        if self._errors is not None:
            errors += PAST_ERROR * (warped(self._errors, step) - errors)
        limit = self._limit(errors, contrast, within)
        trust = within * _trusted(errors, limit)
        return Match(tone, errors, limit, np.minimum(trust, blurred(trust, SOFT * self._scale)))

    def _drawn_to_before(self, rest: Array, plain: Array, step: Array, blur: float, limit: Array) -> Array:
        """A frame's own rest, nearer to the frame before where that, dulled, matches the plain frame as well."""
        assert self._before is not None
        before = warped(self._before, step, sharp=True)
        change = plain - blurred(before, blur)
        tone = self._broad(change)
        trust = FROM_BEFORE * inside(step, EDGE * self._scale) * _trusted(self._error(change - tone), limit)
        drawn: Array = rest + (before + tone - rest) * trust[..., None]
        return drawn

    def _broad(self, picture: Array, weight: Array | None = None) -> Array:
        """What of a picture (H, W, 3) is as broad as tone, as the mean around each pixel by weight."""
        sigma = TONE * self._scale
        if weight is None:
            return blurred(picture, sigma)
        broad: Array = blurred(picture * weight[..., None], sigma) / (blurred(weight, sigma)[..., None] + 1e-3)
        return broad

    def _error(self, difference: Array) -> Array:
        """The mean square (H, W) of a difference (H, W, 3) around each pixel."""
        return blurred(np.einsum("hwc,hwc->hw", difference, difference) / 3, REACH * self._scale)

    def _limit(self, errors: Array, contrast: Array, within: Array) -> Array:
        """The errors (H, W) at which what is carried is half trusted."""
        few_errors, few_within = errors[::SPARSE, ::SPARSE], within[::SPARSE, ::SPARSE] > 0.5
        noise = float(np.median(few_errors[few_within])) if few_within.any() else 0.0
        return OF_NOISE * noise + OF_CONTRAST * contrast + LEAST_ERROR

    def _steadied(self, tone: Array, step: Array) -> Array:
        """The tone without what of its change since the frame before may be noise."""
        if self._tone is None:
            return tone
        before = warped(self._tone, step)
        change = tone - before
        clear = np.square(change)
        clear /= clear + CLEAR_CHANGE**2
        return before + change * (NEW_TONE + (1 - NEW_TONE) * clear)

    def _restored(self, plain: Array, carried: Array, trust: Array) -> Array:
        """The plain frame, with each band of its details as strong as comes closest to what is carried.

        Least squares over what is trusted: where blur prevails they amplify, where noise does they dampen.
        """
        enough = float(trust.mean())
        enough /= enough + ENOUGH_TO_JUDGE
        restored, rest, wanted = np.zeros_like(plain), plain, carried
        for sigma in BANDS:
            broader, wanted_broader = (blurred(picture, sigma * self._scale) for picture in (rest, wanted))
            band = rest - broader
            weighted = band * trust[..., None]
            gain = float(np.vdot(weighted, wanted - wanted_broader) / (np.vdot(weighted, band) + 1))
            restored += (1 + (min(max(gain, 0.0), MOST_GAIN) - 1) * enough) * band
            rest, wanted = broader, wanted_broader
        return restored + rest


def _trusted(errors: Array, limit: Array) -> Array:
    """From 1 for no error to 0, half at the limit."""
    return np.asarray(1 / (1 + (errors / limit) ** 3), np.float32)


def _to_bytes(picture: Array) -> Pixels:
    levels: Pixels = picture.round().clip(0, 255).astype(np.uint8)
    return levels
