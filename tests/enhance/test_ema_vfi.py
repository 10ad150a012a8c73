"""How EMA-VFI is used on frames: padding, colours, times, cuts and tiles, with networks whose results are known."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from sgm.checkpoint.loading_interpolator import CONFIGS
from sgm.data.photographs import HELD_OUT, load_photograph
from sgm.enhance.ema_vfi import MIN_TILE, NetworkInterpolator
from sgm.enhance.interpolation import interpolate
from sgm.models.ema_vfi import EMAVFI, empty_ema_vfi
from tests.deterministic_weights import weights_for

CPU = torch.device("cpu")


class Fading:
    """In place of the network: one frame fades into the other. It runs out of memory above so many pixels."""

    def __init__(self, most_pixels=10**9):
        self.most_pixels, self.encoded, self.seen = most_pixels, 0, []

    def __call__(self, first, second, time):
        return self.between(self.encode(first, second), time)

    def encode(self, first, second):
        if first[0, 0].numel() > self.most_pixels:
            raise RuntimeError("CUDA out of memory")
        self.encoded += 1
        self.seen.append(first)
        return first, second

    def between(self, pair, time):
        return torch.lerp(*pair, time)


def interpolator(network, knows_any_time=True, warnings=None):
    warn = ([] if warnings is None else warnings).append
    return NetworkInterpolator(network, knows_any_time, CPU, nullcontext, warn)


def frames(height=90, width=130, shift=3):
    photograph = np.asarray(load_photograph(HELD_OUT[0]))
    return [np.ascontiguousarray(photograph[100 : 100 + height, x : x + width]) for x in (100, 100 + shift)]


def faded(first, second, time):
    return np.floor((1 - time) * first.astype(np.float64) + time * second + 0.5).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(90, 130), (64, 96), (17, 301), (1, 1)])
def test_any_size_comes_back_in_its_place_and_colours(height, width):
    first, second = frames(height, width)
    network = Fading()
    made = interpolator(network).between(first, second).frame_at(0.25)
    assert np.abs(made.astype(int) - faded(first, second, 0.25)).max() <= 1
    if network.seen:  # frames of a pixel or so may be equal
        (seen,) = network.seen
        assert [side % 32 for side in seen.shape[2:]] == [0, 0]
        top, left = (-height % 32) // 2, (-width % 32) // 2
        blue_of_the_corner = torch.full_like(seen[0, 0, : top + 1, : left + 1], float(first[0, 0, 2]) / 255)
        assert torch.equal(seen[0, 0, : top + 1, : left + 1], blue_of_the_corner), "the network takes BGR"


def test_every_level_comes_back_as_it_was():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    other = levels.copy()
    other[0, 0] = 255
    assert np.array_equal(interpolator(Fading()).between(levels, other).frame_at(0.0)[1:], levels[1:])


def play(clip, by, fps_in=6, fps_out=24):
    return np.concatenate(list(interpolate([clip], fps_in, fps_out, len(clip), between=by.between)))


def test_the_clips_own_frames_stay_and_the_encoder_runs_once_a_pair():
    network, clip = Fading(), np.stack(frames())
    played = play(clip, interpolator(network))
    assert np.array_equal(played[[0, 4]], clip)
    for k in (1, 2, 3):
        assert np.abs(played[k].astype(int) - faded(*clip, k / 4)).max() <= 1
    assert network.encoded == 1


def test_across_a_cut_and_between_equal_frames_nothing_is_made():
    photographs = [np.asarray(load_photograph(name))[40:200, 40:280] for name in HELD_OUT[:2]]
    network, clip = Fading(), np.stack([photographs[0], *photographs])
    played = play(clip, interpolator(network))
    assert np.array_equal(played, clip[[0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2]])
    assert network.encoded == 0


def test_who_knows_only_the_middle_halves_again():
    class Middle(Fading):
        def between(self, pair, time):
            assert time == 0.5
            return super().between(pair, time)

    network, (first, second) = Middle(), frames()
    found = interpolator(network, knows_any_time=False).between(first, second)
    for time, encoded in ((0.5, 1), (0.25, 2), (0.75, 3), (0.2501, 3), (0.375, 4)):
        assert np.abs(found.frame_at(time).astype(int) - faded(first, second, time)).max() <= 3
        assert network.encoded == encoded, time
    assert np.array_equal(found.frame_at(0.34), found.frame_at(11 / 32)), "the nearest of 32nds"


def test_where_memory_runs_out_tiles_serve():
    warnings, network, (first, second) = [], Fading(320 * 416), frames(290, 390)
    by = interpolator(network, warnings=warnings)
    made = by.between(first, second).frame_at(0.5)
    assert np.abs(made.astype(int) - faded(first, second, 0.5)).max() <= 1
    assert network.encoded == 1, "that was enough"
    network.most_pixels = 256 * 256
    made = by.between(first, second).frame_at(0.5)
    assert np.abs(made.astype(int) - faded(first, second, 0.5)).max() <= 1
    assert max(seen[0, 0].numel() for seen in network.seen[1:]) == MIN_TILE**2
    assert len(network.seen) == 1 + 4
    assert warnings == [
        "warning: out of memory interpolating frames of 390x290; now in tiles of 256 pixels, which know less of fast"
        " motion"
    ]
    network.most_pixels = 100
    with pytest.raises(RuntimeError, match="out of memory"):
        by.between(first, second).frame_at(0.5)
    small = [np.ascontiguousarray(frame[:8, :8]) for frame in (first, second)]
    network.most_pixels = 32 * 32
    by.between(*small).frame_at(0.5)
    assert len(warnings) == 1, "other sizes are made whole"


def test_other_errors_are_raised():
    class Broken(Fading):
        def encode(self, first, second):
            raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        interpolator(Broken()).between(*frames()).frame_at(0.5)


def test_tiles_of_the_real_network_agree_with_the_whole():
    """Where the flow is short, as it is here with weights that mean nothing, what a tile sees is nearly enough."""
    config = CONFIGS["ours_small"]
    network: EMAVFI = empty_ema_vfi(config)
    state = {name: 0.5 * weights_for(name, tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict(state, assign=True)
    first, second = frames(256, 320)
    whole, tiled = interpolator(network), interpolator(network)
    tiled.tiles[256, 320] = 256
    made = [by.between(first, second).frame_at(0.3).astype(int) for by in (whole, tiled)]
    assert np.abs(made[0] - made[1]).mean() < 1.0
    assert np.abs(made[0] - first).mean() > 2.0, "and it is made by the network"
