"""What the image decoder's training starts from: nearly the best linear decoder, computed in closed form.

A decoder that repeats every value for 2x2 pixels and then convolves can't tell these pixels apart wherever neighbouring
values agree, so it can't draw what differs between them, and a gradient finds the way out slowly. Here the decoder is
given one. The signs of nine latents hardly ever all agree between neighbours: where they differ on a pixel's left but
not on its right, the pixel is the left one of its pair. From then on it is known which pixel is left, and every later
enlargement learns it from there. With that knowledge least squares on training pictures give each resolution's
principal components in turn, and at last the colours.

Every level also carries two large constants, the anchors, next to which the rest hardly changes a normalisation's
deviation. So absolute colours survive the normalisations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.clips import to_tensor, training_clip
from ..models.layers import TimestepResBlock
from ..models.vae import Autoencoder, Decoder, Level, ResBlock, TemporalResBlock, run_layer, silu
from ..models.video_model import VideoModel
from ..progress import Progress
from .config import TrainingConfig

NUM_PICTURES = 250
ANCHOR = 100.0  # against about 1 elsewhere in the residual stream
HIDDEN_ANCHOR = 1000.0  # the same inside the residual branches set here, against about 10
LINEAR = 5.0  # SiLU(x + LINEAR) is nearly x + LINEAR for the values met here
STEEP = 8.0  # SiLU(STEEP * x) / STEEP is nearly max(x, 0)
GAIN = 8.0  # of a latent, before its sign is taken: small ones get a smaller one
OPEN, CLOSED = 2.0, 7.0  # what is added to a value that passes, and what is subtracted from one that doesn't
THRESHOLDS = 0.2, 0.5  # between the counts of right or lower pixels and those of left or upper ones
FIRST_DETAIL = 3  # the components before it are the patch's mean colour
NUM_SIGNS = 9


@dataclass(frozen=True)
class Channels:
    """What the first channels of a level hold, in this order: components, details, marks, counts.

    components: of the level's patches. details: half of those below that depend on where in its pair a pixel is.
    marks: copies of values -1 or 1 below that differ between neighbours. counts: twice for x and twice for y, how many
    marks differ on the left less how many on the right, so positive in a left pixel.
    """

    components: int
    details: int
    marks: int

    @property
    def detail(self) -> range:
        """The details' channels."""
        return range(self.components, self.components + self.details)

    @property
    def mark(self) -> range:
        """The marks' channels."""
        return range(self.detail.stop, self.detail.stop + self.marks)

    @property
    def count(self) -> range:
        """The counts' channels."""
        return range(self.mark.stop, self.mark.stop + 4)


QUARTER, HALF, WHOLE = Channels(24, 25, NUM_SIGNS), Channels(12, 9, 2), Channels(3, 3, 2)


@torch.no_grad()
def fit_decoder(model: VideoModel, config: TrainingConfig) -> None:
    """Set the decoder, whose residual branches must be zero, to restore `NUM_PICTURES` of the run's training stills."""
    numbers = Progress().track("fitting the decoder", range(NUM_PICTURES), unit="picture")
    stills = [training_clip(config.data, n, config.size, model.config, config.seed).frames for n in numbers]
    pictures = to_tensor(np.concatenate(stills))
    set_decoder(model.first_stage, model.conditioner.vae.encode(pictures) * model.first_stage.scale_factor, pictures)


@torch.no_grad()
def set_decoder(first_stage: Autoencoder, latents: Tensor, pictures: Tensor) -> None:
    """Set the decoder to restore pictures (n, 3, H, W), in [-1, 1], from scaled latents (n, c, H/8, W/8)."""
    decoder = first_stage.decoder
    assert decoder is not None
    eighth, quarter, half, whole = _coarse_to_fine(decoder)
    assert decoder.norm_out.num_groups == 1, "every group would need anchors of its own"
    _anchor(decoder)
    count = latents.shape[1]
    signs = range(count, count + NUM_SIGNS)
    _set_rows(decoder.conv_in, 0, F.pad(torch.eye(count), (0, 0, 0, NUM_SIGNS)))
    _set_signs(decoder.mid.block_1, range(FIRST_DETAIL, FIRST_DETAIL + NUM_SIGNS), signs)
    stream = _run((*decoder.mid.layers(), *_blocks(eighth)), decoder.conv_in(first_stage.unscale(latents)))

    _enlarge(eighth, quarter, QUARTER, (signs, signs))
    stream = _restore(eighth, quarter, stream, _components(pictures, 4, QUARTER.components))
    _enlarge(quarter, half, HALF, ([QUARTER.mark[0]], [QUARTER.mark[1]]))
    stream = _restore(quarter, half, stream, _components(pictures, 2, HALF.components))
    _enlarge(half, whole, WHOLE, ([HALF.mark[0]], [HALF.mark[1]]))
    _restore(half, whole, stream, pictures)

    # Colours less a channel that is 0: the normalisation has shifted them all alike.
    read = [0, 1, 2, WHOLE.count.stop]
    decoder.norm_out.bias[read] = 8.0  # see LINEAR; colours are to be exact
    rows = torch.zeros(3, decoder.conv_out.in_channels)
    rows[:, read] = torch.tensor([[1.0, 0, 0, -1], [0, 1, 0, -1], [0, 0, 1, -1]])
    _set_rows(decoder.conv_out, 0, rows)


def _set_signs(block: ResBlock, details: Sequence[int], signs: Sequence[int]) -> None:
    """Let the block write the signs, -1 to 1, of the channels `details` to the empty channels `signs`."""
    conv1, conv2 = _open(block, 2 * NUM_SIGNS)
    block.norm1.bias[list(details)] = LINEAR
    for number, (detail, sign) in enumerate(zip(details, signs, strict=True)):
        for hidden, offset in ((2 * number, 1.0), (2 * number + 1, -1.0)):
            conv1.weight[hidden, detail, 1, 1] = STEEP * GAIN
            _bias(conv1)[hidden] = STEEP * (offset - GAIN * LINEAR)
            conv2.weight[sign, hidden, 1, 1] = offset / STEEP
        _bias(conv2)[sign] = -1


def _enlarge(below: Level, level: Level, channels: Channels, marks: tuple[Sequence[int], Sequence[int]]) -> None:
    """Set all but the least squares: the copies, the counts and, in the last block's branch, the details by place.

    marks: the channels below whose values differ between neighbours in x, and those that do in y.
    """
    enlarging, (first, last) = _enlarging(below), _blocks(level)
    copied = sorted({*marks[0], *marks[1]})
    sources = [*range(FIRST_DETAIL, FIRST_DETAIL + channels.details), *copied]
    rows = torch.zeros(channels.count.stop + 1, enlarging.in_channels)
    rows[[*channels.detail, *channels.mark], sources] = 1  # the counts and one more channel stay empty
    rows[channels.detail] /= 2
    _set_rows(enlarging, 0, rows)
    if hasattr(first, "nin_shortcut"):
        _set_rows(first.nin_shortcut, 0, torch.eye(channels.count.stop + 1, first.nin_shortcut.in_channels))

    conv1, conv2 = _open(first, _hidden_for_counts(channels))
    first.norm1.bias[list(channels.mark)] = LINEAR
    hidden, share = (
        0,
        0.25 if channels.marks == NUM_SIGNS else 1.0,
    )  # about half of the signs differ, so counts are about 1
    for axis, (before, after) in enumerate((((1, 0), (1, 2)), ((0, 1), (2, 1)))):
        for mark in (channels.mark[copied.index(source)] for source in marks[axis]):
            for (y, x), counted in ((before, 0.5 * share), (after, -0.5 * share)):
                for rising in (STEEP, -STEEP):
                    conv1.weight[hidden, mark, 1, 1], conv1.weight[hidden, mark, y, x] = rising, -rising
                    conv2.weight[channels.count[2 * axis : 2 * axis + 2], hidden, 1, 1] = counted / STEEP
                    hidden += 1

    # SiLU(STEEP (count - low)) - SiLU(STEEP (count - high)) is STEEP (high - low) in a left or upper pixel, else 0.
    conv1, conv2 = _open(last, 3 * (channels.details + 1))
    last.norm1.bias[list(channels.detail)] = LINEAR
    for count, threshold in zip(channels.count, THRESHOLDS * 2, strict=True):
        last.norm1.weight[count] *= STEEP
        last.norm1.bias[count] = -STEEP * threshold
    hidden = 0
    for axes in ((0,), (1,), (0, 1)):
        for detail in (None, *channels.detail):  # None stands for the constant 0, which tells where details pass
            _bias(conv1)[hidden] = OPEN - CLOSED * len(axes)
            if detail is not None:
                conv1.weight[hidden, detail, 1, 1] = 1
                _bias(conv1)[hidden] -= LINEAR
            for axis in axes:
                for sign, count in zip((1, -1), channels.count[2 * axis : 2 * axis + 2], strict=True):
                    conv1.weight[hidden, count, 1, 1] = sign * CLOSED / (STEEP * (THRESHOLDS[1] - THRESHOLDS[0]))
            if detail is None and len(axes) == 1:  # the next level's mark, in place of one that is no longer needed
                mark = channels.mark[axes[0]]
                conv2.weight[mark, hidden, 1, 1] = 2 / OPEN
                _bias(conv2)[mark] = -1
            hidden += 1


def _restore(below: Level, level: Level, stream: Tensor, target: Tensor) -> Tensor:
    """Set the level's components to the target (n, c, h, w) by least squares; returns what the level makes of `stream`.

    They are the sum of the enlarging convolution and of the last block's branch.
    """
    enlarging, (first, last), count = _enlarging(below), _blocks(level), target.shape[1]
    enlarged = F.interpolate(stream, scale_factor=2.0)
    seen = run_layer(first, enlarging(enlarged), 1)
    hidden = silu(last.norm2(last.conv1(silu(last.norm1(seen)))))
    (of_enlarged, of_hidden), bias = _least_squares([enlarged[:, :-2], hidden[:, :-2]], target)
    enlarging.weight[:count, :-2], _bias(enlarging)[:count] = of_enlarged, bias
    last.conv2.weight[:count, :-2] = of_hidden
    return _run(_blocks(level), enlarging(enlarged))


def _anchor(decoder: Decoder) -> None:
    """Give every level its two constants, in its last two channels, and normalisations that divide by about 1."""
    for module in decoder.modules():
        if isinstance(module, ResBlock):
            _ignore_anchors(module.norm1, ANCHOR)
            if hasattr(module, "nin_shortcut"):
                shortcut = module.nin_shortcut
                _set_rows(shortcut, shortcut.out_channels - 2, torch.eye(shortcut.in_channels)[-2:])
        elif isinstance(module, TimestepResBlock):
            norm = module.in_layers[0]
            assert isinstance(norm, nn.GroupNorm)
            _ignore_anchors(norm, ANCHOR)
    _ignore_anchors(decoder.norm_out, ANCHOR)
    for conv in (decoder.conv_in, *(_enlarging(level) for level in _coarse_to_fine(decoder)[:-1])):
        conv.weight.data[-2:] = 0
        _bias(conv).data[-2:] = torch.tensor([ANCHOR, -ANCHOR])
        if conv is not decoder.conv_in:
            conv.weight.data[:, -2:] = 0


def hold_places(first_stage: Autoencoder) -> None:
    """Let no gradient reach a decoder's anchors, marks and counts, if it has them: any step would be far too long."""
    decoder = first_stage.decoder
    assert decoder is not None
    if _bias(decoder.conv_in)[-2:].tolist() != [ANCHOR, -ANCHOR]:
        return
    anchors = [-2, -1]
    signs = [*range(decoder.conv_in.in_channels, decoder.conv_in.in_channels + NUM_SIGNS), *anchors]
    eighth, *levels = _coarse_to_fine(decoder)
    _hold(decoder.conv_in, signs, [])
    _hold_branch(decoder.mid.block_1, signs, 2 * NUM_SIGNS)
    for block in (decoder.mid.block_2, *_blocks(eighth)):
        _hold_branch(block, signs, 0)
    for below, level, channels in zip((eighth, *levels), levels, (QUARTER, HALF, WHOLE), strict=False):
        first, last = _blocks(level)
        kept = [*channels.mark, *channels.count, *anchors]
        _hold(_enlarging(below), kept, anchors)
        if hasattr(first, "nin_shortcut"):
            _hold(first.nin_shortcut, kept, anchors)
        _hold_branch(first, kept, _hidden_for_counts(channels))
        _hold_branch(last, kept, 0)
        _hold(last.conv1, [], channels.count)


def _hold_branch(block: ResBlock, rows: Sequence[int], hidden: int) -> None:
    """Let no gradient change these of a block's outputs, nor what its first `hidden` hidden channels do."""
    _hold(block.conv1, [*range(hidden), -2, -1] if hidden else [], [])
    _hold(block.conv2, rows, range(hidden))
    if isinstance(block, TemporalResBlock):
        _hold(block.time_stack.out_layers[-1], rows, [])


def _hidden_for_counts(channels: Channels) -> int:
    """How many hidden channels the counts take: each mark's rises and falls towards two neighbours, for its axes."""
    return (8 if channels.marks == NUM_SIGNS else 4) * channels.marks


def _hold(conv: nn.Module, rows: Sequence[int], columns: Sequence[int]) -> None:
    """Let no gradient change these output channels, nor what these input channels do."""
    assert isinstance(conv, nn.Conv2d | nn.Conv3d)
    assert conv.bias is not None
    for parameter in (conv.weight, conv.bias):
        if parameter.requires_grad:
            changing = torch.ones_like(parameter)
            changing[list(rows)] = 0
            if parameter.ndim > 1:
                changing[:, list(columns)] = 0
            parameter.register_hook(changing.mul)


def _coarse_to_fine(decoder: Decoder) -> list[Level]:
    return [level for level in reversed(decoder.up) if isinstance(level, Level)]


def _blocks(level: Level) -> list[ResBlock]:
    return [block for block in level.block if isinstance(block, ResBlock)]


def _enlarging(level: Level) -> nn.Conv2d:
    assert level.upsample is not None
    return level.upsample.conv


def _ignore_anchors(norm: nn.GroupNorm, anchor: float) -> None:
    """Let a normalisation multiply by about 1, and hide the anchors themselves."""
    norm.weight.data.fill_(anchor * (2 / norm.num_channels) ** 0.5)
    norm.weight.data[-2:] = 0


def _open(block: ResBlock, hidden: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    """The block's convolutions, its branch anchored, its first `hidden` channels and its output emptied."""
    for parameter in (block.conv1.weight, _bias(block.conv1)):
        parameter.data[:hidden] = 0
    for parameter in (block.conv2.weight, _bias(block.conv2)):
        parameter.data.zero_()
    block.conv1.weight.data[-2:] = 0
    _bias(block.conv1).data[-2:] = torch.tensor([HIDDEN_ANCHOR, -HIDDEN_ANCHOR])
    _ignore_anchors(block.norm2, HIDDEN_ANCHOR)
    return block.conv1, block.conv2


def _set_rows(conv: nn.Conv2d, first: int, matrix: Tensor) -> None:
    """Set output channels from `first` to a matrix over all input channels of the same pixel, with zero bias."""
    rows, middle = range(first, first + len(matrix)), conv.kernel_size[0] // 2
    conv.weight.data[rows] = 0
    conv.weight.data[rows, :, middle, middle] = matrix
    _bias(conv).data[rows] = 0


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def _run(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = run_layer(layer, x, num_frames=1)
    return x


def _components(pictures: Tensor, side: int, count: int) -> Tensor:
    """The pictures' first principal components of side x side pixels, (n, count, H/side, W/side), deviating by 1/2."""
    patches = F.pixel_unshuffle(pictures, side)
    samples = patches.permute(1, 0, 2, 3).flatten(1)
    variances, directions = torch.linalg.eigh(torch.cov(samples))
    basis = directions.flip(1)[:, :count] / (2 * variances.flip(0)[:count].sqrt())
    return torch.einsum("nchw,ck->nkhw", patches, basis)


def _least_squares(inputs: Sequence[Tensor], target: Tensor) -> tuple[list[Tensor], Tensor]:
    """The 3x3 convolutions of the inputs (n, c, h, w) whose sum, with a bias, best gives the target (n, k, h, w)."""
    widths = [9 * x.shape[1] for x in inputs]
    gram, moment = torch.zeros(sum(widths) + 1, sum(widths) + 1), torch.zeros(sum(widths) + 1, target.shape[1])
    for *parts, wanted in zip(*(x.split(8) for x in (*inputs, target)), strict=True):
        rows = torch.cat([F.unfold(part, 3, padding=1) for part in parts], 1).transpose(1, 2).flatten(0, 1)
        rows = F.pad(rows, (0, 1), value=1.0)
        gram += rows.T @ rows
        moment += rows.T @ wanted.flatten(2).transpose(1, 2).flatten(0, 1)
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram))
    solution = torch.linalg.solve((gram + ridge).double(), moment.double()).float()
    *weights, bias = solution.split([*widths, 1])
    return [w.T.unflatten(1, (-1, 3, 3)) for w in weights], bias[0]
