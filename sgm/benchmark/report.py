"""What a benchmark found: tables to read, a chart to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..metrics.tables import markdown_table

Row = Mapping[str, Any]
STAGES = ("loading", "image tower", "encoding", "UNet, one step", "sampling", "decoding", "writing", "whole clip")


def stage_table(results: Sequence[Row]) -> str:
    """A Markdown table: a row for each stage, a column for each way of making the clip."""
    header = ["seconds (median)", *(result["name"] for result in results)]
    rows = [[stage, *(_seconds(result["seconds"].get(stage)) for result in results)] for stage in STAGES]
    rows.append(["first clip", *(_seconds(result["seconds"].get("first clip")) for result in results)])
    rows.append(["spread of the whole", *(f"{result['spread']:.0%}" for result in results)])
    rows.append(["TFLOP/s, sampling", *(_number(result.get("sampling_tflops_a_second")) for result in results)])
    rows.append(["share of the ceiling", *(_share(result.get("share_of_ceiling")) for result in results)])
    counted = sorted({what for result in results for what in result["peak_memory_bytes"]})
    for what in counted:
        cells = (_gigabytes(result["peak_memory_bytes"].get(what)) for result in results)
        rows.append([f"peak memory ({what}), GB", *cells])
    rows.append(["PSNR to exact in fp32, dB", *(_number(result.get("psnr_db")) for result in results)])
    rows.append(["SSIM to exact in fp32", *(_number(result.get("ssim"), 4) for result in results)])
    return markdown_table([header, *rows])


def rival_table(rivals: Sequence[Row]) -> str:
    """A Markdown table: how many times as long each rival takes as ours, run in turn with it."""
    header = [
        "in turn with ours",
        "one step, times as long",
        "whole clip, times as long",
        "difference of a step's output",
    ]
    rows = [
        [rival["name"], _number(rival["step_ratio"]), _number(rival["clip_ratio"]), f"{rival['step_difference']:.1e}"]
        for rival in rivals
    ]
    return markdown_table([header, *rows])


def draw_chart(path: Path, results: Sequence[Row], title: str) -> None:
    """A bar for each way of making the clip, divided into its stages; writes a PNG."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.5 * len(results)), layout="constrained")
    names = [result["name"] for result in results]
    left = [0.0] * len(results)
    for stage in ("conditioning", "sampling", "decoding"):
        widths = [result["seconds"].get(stage, 0.0) for result in results]
        axes.barh(names, widths, left=left, label=stage)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    undivided = [
        result["seconds"]["whole clip"] if start == 0 else 0.0 for result, start in zip(results, left, strict=True)
    ]
    if any(undivided):
        axes.barh(names, undivided, color="0.6", label="whole clip")
    axes.invert_yaxis()
    axes.set(xlabel="seconds", title=title)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))  # beside the bars, not on them
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _gigabytes(value: int | None) -> str:
    return "" if value is None else f"{value / 1e9:.2f}"
