"""The benchmark's run: each way of making the clip is loaded, measured and freed, in turn with its rivals."""

from __future__ import annotations

import gc
import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..checkpoint.finding import find_checkpoint
from ..config import ModelConfig, load_config
from ..errors import UserError
from ..generation.pipeline import load
from ..metrics.likeness import Pictures, psnr, ssim
from ..metrics.tables import write_json
from ..parameters.sampling import SamplingParameters, SamplingSettings
from ..progress import Progress
from ..runtime.devices import PRECISIONS, choose_device, choose_precision, give_back_memory
from .diffusers_pipeline import Rival, check_diffusers
from .flops import Arithmetic, ceiling, count
from .machine import describe_machine
from .random_weights import narrowed, write_config, write_random_weights
from .report import draw_chart, rival_table, stage_table
from .subject import Subject
from .timing import measure_in_turn, ratio, synchronize

if TYPE_CHECKING:
    from .request import BenchmarkRequest


def run_benchmark(request: BenchmarkRequest) -> str:
    """Measures what is asked for, writes it, and returns the tables. Raises UserError."""
    config = load_config(request.version)
    if request.model_channels is not None:
        config = narrowed(config, request.model_channels)
    device = choose_device(request.device)
    precision = choose_precision(request.precision, device)
    if request.against is not None:
        check_diffusers(config)
    if request.cap_gb is not None:
        _cap(device, request.cap_gb)
    exact, *_ = [_settings(request, config, preset) for preset in ("exact", *request.preset)]  # all are checked here
    progress = Progress()
    with tempfile.TemporaryDirectory() as folder:
        weights = _weights(request, config, Path(folder), PRECISIONS[precision], progress)
        bench = Bench(request, config, device, precision, weights, progress)
        limit = ceiling(device, PRECISIONS[precision])
        reference = bench.reference() if request.reference else None
        results: list[dict[str, Any]] = []
        rivals: list[dict[str, Any]] = []
        ways = list(itertools.product(request.preset, request.memory))
        for preset, memory in progress.track("measuring", ways, unit="way"):
            with_rivals = request.against is not None and not results
            result, found = bench.measure(preset, memory, limit, reference, with_rivals=with_rivals)
            results.append(result)
            rivals += found
    height, width = bench.size(exact)
    machine = describe_machine(device)
    content = {
        "version": request.version,
        "model_channels": config.unet.model_channels,
        "random_weights": "config" in weights,
        "frames": exact.num_frames,
        "width": width,
        "height": height,
        "precision": precision,
        "fp8": request.fp8,
        "compiled": request.compile,
        "cap_gb": request.cap_gb,
        "warmups": request.warmups,
        "repeats": request.repeats,
        "ceiling_tflops_a_second": limit / 1e12,
        "operations": asdict(bench.operations(exact)),
        "machine": machine,
        "results": results,
        "rivals": rivals,
    }
    write_json(request.output, content)
    title = f"{request.version}, {exact.num_frames} frames of {width}x{height}, {precision}, {machine['device']}"
    chart = request.output.with_suffix(".png")
    bars = results + [{"name": rival["name"], "seconds": {"whole clip": rival["seconds"]}} for rival in rivals]
    draw_chart(chart, bars, title)
    tables = [title, stage_table(results)] + ([rival_table(rivals)] if rivals else [])
    return "\n\n".join([*tables, f"written to {request.output} and {chart}"]) + "\n"


@dataclass(frozen=True)
class Bench:
    """Where all ways of making the clip are measured: with the same weights, on the same device, from one image.

    weights: what `load` takes of them.
    """

    request: BenchmarkRequest
    config: ModelConfig
    device: torch.device
    precision: str
    weights: dict[str, Any]
    progress: Progress

    def size(self, settings: SamplingSettings) -> tuple[int, int]:
        """The clip's height and width in pixels."""
        return settings.framing.height or self.config.height, settings.framing.width or self.config.width

    def operations(self, settings: SamplingSettings) -> Arithmetic:
        """How much there is to compute."""
        return count(self.config, settings.num_frames, *self.size(settings), settings.decoding_t)

    def load(self, preset: str, memory: str, precision: str, *, fp8: str = "off", compiled: bool = False) -> Subject:
        """A freshly loaded model that is asked for the clip."""
        pipeline = load(
            self.request.version,
            **self.weights,
            device=str(self.device),
            precision=precision,
            fp8=fp8,
            memory=memory,
            compile=compiled,
            progress=Progress(quiet=True),
        )
        settings = _settings(self.request, self.config, preset)
        generator = torch.Generator().manual_seed(0)
        image = torch.rand(1, 3, *self.size(settings), generator=generator) * 2 - 1
        return Subject(pipeline, image, settings)

    def reference(self) -> Pictures:
        """The exact clip on the plain path, in fp32."""
        self.progress.say("making the exact clip in fp32, to compare the others with")
        subject = self.load("exact", "high", "fp32")
        subject.make_clip()
        assert subject.frames is not None
        return subject.frames

    def measure(
        self, preset: str, memory: str, limit: float, reference: Pictures | None, *, with_rivals: bool
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """One way's figures, and those of its rivals, taken in turn with it.

        limit: the device's operations a second. reference: the exact clip, to compare with.
        """
        name = f"{preset}, {memory}"
        clips = self.request.warmups + self.request.repeats
        self.progress.say(f"measuring {name}{' beside diffusers' if with_rivals else ''}, {clips} clips")
        start = time.perf_counter()
        fp8, compiled = self.request.fp8, self.request.compile
        subject = self.load(preset, memory, self.precision, fp8=fp8, compiled=compiled)
        synchronize(self.device)
        loading = time.perf_counter() - start
        rivals = _rivals(subject, self.precision) if with_rivals else {}
        result, found = _measure(self.request, name, subject, rivals, loading)
        result |= _rates(self.operations(subject.settings), subject, result, limit)
        if reference is not None:
            result |= _likeness(subject, reference)
        del subject, rivals
        _let_go(self.device)
        return result, found


def _cap(device: torch.device, gigabytes: float) -> None:
    if device.type != "cuda":
        raise UserError(f"cap_gb limits graphics memory, which {device} does not have: omit it, or compute on cuda")
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(gigabytes * 1e9 / total, 1.0), device)


def _settings(request: BenchmarkRequest, config: ModelConfig, preset: str) -> SamplingSettings:
    width, height = request.size or (None, None)
    return SamplingParameters(
        num_frames=request.frames,
        num_steps=request.steps,
        width=width,
        height=height,
        preset=preset,
    ).resolved_for(config)


def _weights(
    request: BenchmarkRequest, config: ModelConfig, folder: Path, dtype: torch.dtype, progress: Progress
) -> dict[str, Any]:
    """Arguments for `load`: the version's own weights where they are on this machine, else random ones."""
    if request.model_channels is None:
        try:
            return {"checkpoint": find_checkpoint(request.version)}
        except UserError:  # missing, which is no mistake here
            pass
    progress.say("drawing random weights")
    write_random_weights(config, folder / "random.safetensors", dtype)
    write_config(config, folder / "config.yaml")
    return {"checkpoint": folder / "random.safetensors", "config": folder / "config.yaml"}


def _rivals(subject: Subject, precision: str) -> dict[str, Rival]:
    pipeline = subject.pipeline
    rivals = {"diffusers": Rival(pipeline.generator.model, pipeline.device, PRECISIONS[precision])}
    if pipeline.device.type == "cuda":
        rivals["diffusers, compiled"] = Rival(
            pipeline.generator.model, pipeline.device, PRECISIONS[precision], compiled=True
        )
    return rivals


def _measure(
    request: BenchmarkRequest, name: str, subject: Subject, rivals: dict[str, Rival], loading: float
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Our times, and those of the rivals, taken in turn with ours."""
    device = subject.pipeline.device
    clips: dict[str, Callable[[], object]] = {name: subject.make_clip}
    clips |= {rival: theirs.clip_of(subject) for rival, theirs in rivals.items()}
    clip_times = measure_in_turn(clips, device, request.warmups, request.repeats)
    single = subject.single_stages(request.warmups, request.repeats)
    result = {
        "name": name,
        "seconds": {
            "loading": loading,
            **{stage: timing.median for stage, timing in single.items()},
            **{stage: subject.seconds_of(stage, request.warmups) for stage in ("conditioning", "sampling", "decoding")},
            "whole clip": clip_times[name].median,
            "first clip": clip_times[name].first,
        },
        "spread": clip_times[name].spread,
        "peak_memory_bytes": subject.peak_memory(),
        "runs": clip_times[name].as_json(),
    }
    found = []
    for rival, theirs in rivals.items():
        steps: dict[str, Callable[[], Tensor]] = {"ours": subject.unet_step(), rival: theirs.step_of(subject)}
        step_times = measure_in_turn(steps, device, request.warmups, request.repeats)
        outputs = [step().float() for step in steps.values()]
        found.append(
            {
                "name": rival,
                "seconds": clip_times[rival].median,
                "clip_ratio": ratio(clip_times[rival], clip_times[name]),
                "step_ratio": ratio(step_times[rival], step_times["ours"]),
                "step_difference": float((outputs[0] - outputs[1]).norm() / outputs[1].norm()),
                "runs": clip_times[rival].as_json(),
                "step_runs": {which: timing.as_json() for which, timing in step_times.items()},
            }
        )
    return result, found


def _rates(operations: Arithmetic, subject: Subject, result: dict[str, Any], limit: float) -> dict[str, float]:
    """Operations a second in sampling, and their share of the device's ceiling."""
    clip = subject.settings
    full = -(-clip.num_steps // clip.cache_interval)
    total = full * operations.unet_step + (clip.num_steps - full) * operations.unet_cached_step
    rate = total / result["seconds"]["sampling"]
    return {"sampling_tflops_a_second": rate / 1e12, "share_of_ceiling": rate / limit}


def _likeness(subject: Subject, reference: Pictures) -> dict[str, float]:
    """How close the clip is to the exact one in fp32."""
    frames = subject.frames
    assert frames is not None
    similar = [ssim(frame, true) for frame, true in zip(frames, reference, strict=True)]
    return {"psnr_db": psnr(frames, reference), "ssim": sum(similar) / len(similar)}


def _let_go(device: torch.device) -> None:
    gc.collect()
    give_back_memory(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
