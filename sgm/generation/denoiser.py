"""The UNet as the sampler and the training loss need it: a function of noisy latents and their noise level."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..config import GuidanceConfig
from ..diffusion.edm import SAMPLERS, SCHEDULES, Denoiser, Track, denoise, guidance_scales, guide, start
from ..models.conditioner import Conditioning
from ..models.feature_cache import FeatureCache
from ..models.unet import VideoUNet
from ..runtime.frame_sharing import FrameGroup

Network = Callable[[Tensor, Tensor], Tensor]
Watch = Callable[[float, Tensor], object]  # called with a noise level and the latents denoised at it


@dataclass(frozen=True)
class Solver:
    """How noise becomes latents: the steps, the rule for each, and what is skipped.

    schedule, sampler: names of `SCHEDULES` and `SAMPLERS`.
    guidance_interval: guidance is computed only at noise levels from the first to the second (arXiv:2404.07724).
    cache_interval: the UNet's deep layers are computed only at every N-th call (see `FeatureCache`).
    """

    num_steps: int
    schedule: str = "karras"
    sampler: str = "euler"
    guidance_interval: tuple[float, float] = (0.0, math.inf)
    cache_interval: int = 1


def conditioned_network(unet: VideoUNet, conditions: Sequence[Conditioning], cache_interval: int = 1) -> Network:
    """The UNet with its conditions bound: a function (scaled latents (b t, c, h, w), c_noise (b t,)) -> v.

    The b clips are those of all conditions in order, all of the same size and number of frames.
    """
    given = Conditioning.join(conditions)
    num_frames, context, concat, vector = given.num_frames, given.crossattn, given.concat, given.vector
    run = partial(unet, deep_features=FeatureCache(cache_interval)) if cache_interval > 1 else unet

    def network(scaled: Tensor, noise: Tensor) -> Tensor:
        prediction: Tensor = run(torch.cat([scaled, concat], dim=1), noise, context, vector, num_frames)
        return prediction

    return network


def one_by_one(networks: Sequence[Network]) -> Network:
    """Networks called in turn, equal to one network of all their clips: less memory, a little slower."""

    def network(scaled: Tensor, noise: Tensor) -> Tensor:
        count = len(networks)
        parts = zip(networks, scaled.chunk(count), noise.chunk(count), strict=True)
        return torch.cat([one(*given) for one, *given in parts])

    return network


def one_each(networks: Sequence[Network], group: FrameGroup) -> Network:
    """Networks called at the same time, each by one group of ranks, equal to the same called one by one.

    Of a group's ranks each is given its own frames of the network's clips.
    """

    def network(scaled: Tensor, noise: Tensor) -> Tensor:
        count, size = len(networks), group.size
        parts = list(zip(networks, scaled.chunk(count), noise.chunk(count), strict=True))

        def call(index: int) -> Tensor:
            one, *given = parts[index // size]
            if size == 1:
                return one(*given)
            with group.ranks.waiting_for_each_other():
                return one(*(group.own_frames(each) for each in given))

        if size > 1:
            group.ranks.meet()
        made = [tensor.to(scaled.device) for tensor in group.ranks.share(call, count * size)]
        return torch.cat([group.join(made[start : start + size]) for start in range(0, len(made), size)])

    return network


def conditional_denoiser(network: Network) -> Denoiser:
    """A function (noisy latents (b t, c, h, w), sigma ()) -> denoised latents, of a network of b clips."""
    return lambda noisy, sigma: denoise(network, noisy, sigma.to(noisy.device).expand(len(noisy)))


def guided_denoiser(network: Network, scales: Tensor) -> Denoiser:
    """A function (noisy latents (b t, c, h, w), sigma ()) -> denoised latents, with classifier-free guidance.

    The network is one of 2 b clips, the unconditional ones and then the conditional ones; `scales` (b t,) holds each
    frame's guidance scale.
    """

    def denoiser(noisy: Tensor, sigma: Tensor) -> Tensor:
        denoised = denoise(network, noisy.repeat(2, 1, 1, 1), sigma.to(noisy.device).expand(2 * len(noisy)))
        unconditional, conditional = denoised.chunk(2)
        return guide(unconditional, conditional, scales)

    return denoiser


def make_denoiser(
    unet: VideoUNet,
    conditioning: Conditioning,
    scales: Tensor,
    solver: Solver,
    *,
    in_turn: bool = False,
    group: FrameGroup | None = None,
) -> Denoiser:
    """The denoiser of b clips, with guidance where it has an effect and the solver asks for it.

    If every scale (b t,) is 1, guided and conditional predictions are the same. `in_turn`: the unconditional and the
    conditional clips go through the UNet one after the other, not as one batch; with `group`, each on a group of ranks.
    """

    def network_of(conditions: Sequence[Conditioning]) -> Network:
        if group is not None:
            group.begin(conditioning.num_frames)
            own = [one.of_frames(group.own) for one in conditions]
            return one_each([conditioned_network(unet, [one], solver.cache_interval) for one in own], group)
        if in_turn:
            return one_by_one([conditioned_network(unet, [one], solver.cache_interval) for one in conditions])
        return conditioned_network(unet, conditions, solver.cache_interval)

    def conditional() -> Denoiser:
        return conditional_denoiser(network_of([conditioning]))

    def guided() -> Denoiser:
        return guided_denoiser(network_of([conditioning.unconditional(), conditioning]), scales)

    if bool((scales == 1).all()):
        return conditional()
    return _within(solver.guidance_interval, guided, conditional)


def _within(interval: tuple[float, float], inside: Callable[[], Denoiser], outside: Callable[[], Denoiser]) -> Denoiser:
    """One denoiser inside an interval of noise levels, the other outside, each made anew when its turn comes.

    So neither reuses features that it cached before the other's turn.
    """
    low, high = interval
    current: Denoiser | None = None
    was_inside = False

    def denoiser(noisy: Tensor, sigma: Tensor) -> Tensor:
        nonlocal current, was_inside
        is_inside = bool(low <= sigma <= high)
        if current is None or is_inside != was_inside:
            current, was_inside = (inside if is_inside else outside)(), is_inside
        return current(noisy, sigma)

    return denoiser


def watched(denoiser: Denoiser, watch: Watch) -> Denoiser:
    """The same denoiser, with its results shown to `watch`, for previews; what `watch` raises ends the sampling."""

    def watched_denoiser(noisy: Tensor, sigma: Tensor) -> Tensor:
        denoised = denoiser(noisy, sigma)
        watch(float(sigma), denoised)
        return denoised

    return watched_denoiser


def sample_latents(
    unet: VideoUNet,
    conditioning: Conditioning,
    noise: Tensor,
    guidance: GuidanceConfig,
    solver: Solver,
    *,
    in_turn: bool = False,
    group: FrameGroup | None = None,
    track: Track = iter,
    watch: Watch | None = None,
) -> Tensor:
    """The scaled latents of b clips, float32, from unit noise (b t, c, h, w) of their shape.

    Up to rounding, a clip's are the same in any company. `track` wraps the steps; `watch` sees each denoised result.
    With `group`, all ranks call this with the same.
    """
    scales = guidance_scales(guidance, conditioning.num_frames).repeat(conditioning.num_clips).to(noise.device)
    denoiser = make_denoiser(unet, conditioning, scales, solver, in_turn=in_turn, group=group)
    if watch is not None:
        denoiser = watched(denoiser, watch)
    sigmas = SCHEDULES[solver.schedule](solver.num_steps)  # on the CPU, where each step's level is read
    return SAMPLERS[solver.sampler](denoiser, start(noise, sigmas), sigmas, track)
