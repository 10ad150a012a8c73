import pytest
import torch
import torch.nn.functional as F

from sgm.models.layers import FrameConv, clips_to_frames, frames_to_clips, sinusoid


def test_sinusoid_has_cosines_first_and_falling_frequencies() -> None:
    embedded = sinusoid(torch.tensor([0.0, 1.0, 127.0]), 8)
    frequencies = torch.tensor([1.0, 1e-1, 1e-2, 1e-3])
    for row, value in zip(embedded, (0.0, 1.0, 127.0), strict=True):
        torch.testing.assert_close(row, torch.cat([(value * frequencies).cos(), (value * frequencies).sin()]))


def test_sinusoid_takes_whole_numbers_exactly() -> None:
    assert torch.equal(sinusoid(torch.arange(9), 32), sinusoid(torch.arange(9.0), 32))


@pytest.mark.parametrize(("num_clips", "num_frames"), [(2, 3), (1, 3), (2, 1), (1, 1)])
def test_frames_become_clips_and_back_without_a_copy(num_clips: int, num_frames: int) -> None:
    frames = torch.randn(num_clips * num_frames, 8, 5, 4).contiguous(memory_format=torch.channels_last)
    clips = frames_to_clips(frames, num_frames)
    assert clips.shape == (num_clips, 8, num_frames, 20)
    assert torch.equal(clips[-1, :, -1], frames[-1].flatten(1))
    back = clips_to_frames(clips, 5)
    assert torch.equal(back, frames)
    for view in (clips, back):
        assert view.data_ptr() == frames.data_ptr()
        strides = torch.empty(view.shape, memory_format=torch.channels_last).stride()
        assert view.stride() == strides, "by an axis of length 1, too, torch recognises channels-last memory"


def test_frame_convolution_is_the_three_dimensional_one() -> None:
    conv = FrameConv(8, 16)
    clips = torch.randn(2, 8, 5, 6 * 4)
    plain = F.conv3d(clips.unflatten(3, (6, 4)), conv.weight, conv.bias, padding=(1, 0, 0))
    torch.testing.assert_close(conv(clips), plain.flatten(3))
