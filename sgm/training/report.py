"""What a run reports: a plot of the loss, and sheets of sample pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

SMOOTHING_STEPS = 100


def save_loss_plot(losses: Sequence[float], path: Path) -> None:
    """Draw every step's loss and its running mean, on logarithmic axes."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, losses, color="0.8", linewidth=0.5, label="step")
    window = min(SMOOTHING_STEPS, len(losses))
    mean = np.convolve(losses, np.full(window, 1 / window), mode="valid")
    axes.plot(steps[window - 1 :], mean, color="tab:blue", label=f"mean of {window} steps")
    axes.set(xlabel="step", ylabel="loss", xscale="log", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def save_sheet(rows: Tensor, path: Path) -> None:
    """Save pictures (rows, columns, 3, H, W) in [-1, 1] as one sheet."""
    pixels = ((rows.float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()
    sheet = pixels.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    Image.fromarray(sheet.numpy()).save(path)
