"""Where the weights are: stored on the CPU or on the device, and on the device for as long as they are in use."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..models.layers import FeedForward
from ..models.unet import Stage, VideoUNet
from ..models.video_model import VideoModel
from .devices import MEMORY_MODES, MemoryMode, has_own_memory, next_lower


def weights_device(mode: MemoryMode, device: torch.device) -> torch.device:
    """Where the weights are stored while they are not in use."""
    return torch.device("cpu") if mode.parks_models and has_own_memory(device) else device


class Placement:
    """Where a model's weights are in a memory mode, which may be lowered while the model is in use."""

    def __init__(self, model: VideoModel, device: torch.device, mode: str):
        self.model, self.device, self._first = model, device, mode
        self._kind: Hashable = None
        self._lowered: dict[Hashable, str] = {}
        self._take(mode)

    @property
    def mode(self) -> MemoryMode:
        """The current memory mode."""
        return MEMORY_MODES[self.name]

    @property
    def can_lower(self) -> bool:
        """Whether there is a lower mode."""
        return next_lower(self.name) is not None

    def use_for(self, kind: Hashable) -> None:
        """Switch to the mode for clips of one memory need: the initial one, or a lower one if that was too high."""
        self._kind = kind
        name = self._lowered.get(kind, self._first)
        if name != self.name:
            self._take(name)

    def lower(self) -> None:
        """Switch to the next lower mode for this kind of clip."""
        following = next_lower(self.name)
        assert following is not None
        self._lowered[self._kind] = following
        self._take(following)

    @contextmanager
    def at_work(self, part: nn.Module) -> Iterator[None]:
        """Inside the context, the weights that the part's next call needs are on the device when it needs them."""
        with ExitStack() as stack:
            if self.mode.offloads_unet and has_own_memory(self.device) and isinstance(part, VideoUNet):
                stages = [module for module in part.modules() if isinstance(module, Stage)]
                of_stages = {id(p) for stage in stages for p in stage.parameters()}
                stack.enter_context(_borrowed([p for p in part.parameters() if id(p) not in of_stages], self.device))
                stack.enter_context(_staged(stages, self.device))
            else:
                stack.enter_context(_borrowed(list(part.parameters()), self.device))
            yield

    def _take(self, name: str) -> None:
        self.name = name
        home = weights_device(self.mode, self.device)
        for parameter in self.model.parameters():
            if not parameter.is_meta:  # what sampling doesn't use has no storage
                parameter.data = parameter.data.to(home)
                if home.type == "cpu" and self.device.type == "cuda" and not parameter.data.is_pinned():
                    parameter.data = parameter.data.pin_memory()  # copies twice as fast, and while computing
        for module in self.model.modules():
            if isinstance(module, FeedForward):
                module.tokens_at_once = self.mode.tokens_at_once


@contextmanager
def _borrowed(parameters: list[nn.Parameter], device: torch.device) -> Iterator[None]:
    """Inside the context, the parameters are on the device; then in their storage again, with nothing copied back."""
    homes = [parameter.data for parameter in parameters]
    try:
        for parameter in parameters:
            if not parameter.is_meta:
                parameter.data = _copy(parameter.data, device)
        yield
    finally:
        for parameter, home in zip(parameters, homes, strict=True):
            parameter.data = home


@contextmanager
def _staged(stages: list[Stage], device: torch.device) -> Iterator[None]:
    """Inside the context, a stage's weights are on the device while it runs, and the next stage's are being copied."""
    loads = [_Load(stage, device) for stage in stages]
    hooks = []
    try:
        for load, following in zip(loads, [*loads[1:], loads[0]], strict=True):
            hooks.append(load.stage.register_forward_pre_hook(_before(load, following)))
            hooks.append(load.stage.register_forward_hook(_after(load)))
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for load in loads:
            load.release()


def _before(load: _Load, following: _Load) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        load.start()
        load.finish()
        following.start()

    return hook


def _after(load: _Load) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        load.release()

    return hook


@dataclass
class _Load:
    """The copying of one stage's weights to the device: started on its own stream, finished, and released."""

    stage: Stage
    device: torch.device
    homes: list[Tensor] = field(default_factory=list)
    arrived: torch.cuda.Event | None = None

    def start(self) -> None:
        if self.homes:
            return
        parameters = self._parameters()
        self.homes = [parameter.data for parameter in parameters]
        if self.device.type != "cuda":
            for parameter in parameters:
                parameter.data = _copy(parameter.data, self.device)
            return
        stream = _copy_stream(self.device)
        with torch.cuda.stream(stream):
            for parameter in parameters:
                parameter.data = _copy(parameter.data, self.device)
            self.arrived = stream.record_event()

    def finish(self) -> None:
        if self.arrived is None:
            return
        computing = torch.cuda.current_stream(self.device)
        computing.wait_event(self.arrived)
        for parameter in self._parameters():
            parameter.data.record_stream(computing)  # its memory isn't reused before the computation is done with it
        self.arrived = None

    def release(self) -> None:
        for parameter, home in zip(self._parameters(), self.homes, strict=bool(self.homes)):
            parameter.data = home
        self.homes = []

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.stage.parameters() if not parameter.is_meta]


_copy_streams: dict[torch.device, torch.cuda.Stream] = {}


def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    if device not in _copy_streams:
        _copy_streams[device] = torch.cuda.Stream(device)
    return _copy_streams[device]


def _copy(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True)
