"""The pipeline from a PIL image to a clip: against the goldens through a checkpoint file, and its promises beside."""

import gc
import hashlib
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sgm.config import ModelConfig
from sgm.errors import UserError
from sgm.generation.fitting import fit
from sgm.generation.pipeline import Pipeline, load
from sgm.inputs.image import image_to_tensor
from sgm.outputs.video import read_video
from sgm.parameters.sampling import SamplingParameters
from sgm.runtime.devices import choose_device, choose_precision
from sgm.stages import Stages
from sgm.watermark.embedding import embed_watermark
from tests.small_models import (
    Golden,
    deterministic_state,
    read_golden,
    relative_error,
    with_small_tower,
    write_config,
)

GOLDEN_RUNS = ("svd_xt", "sv3d_p")


@pytest.fixture(scope="module", params=GOLDEN_RUNS)
def golden(request: pytest.FixtureRequest) -> Golden:
    return read_golden(request.param)


def saved_and_loaded(config: ModelConfig, folder: Path) -> Pipeline:
    """Deterministic weights, saved under the released keys and loaded by the public way."""
    checkpoint = folder / "weights.safetensors"
    save_file(deterministic_state(config), checkpoint)
    path = write_config(config, folder / "config.yaml")
    return load(config.version, checkpoint=checkpoint, config=path, device="cpu")


@pytest.fixture(scope="module")
def pipeline(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """That of the golden, but for its image tower."""
    return saved_and_loaded(with_small_tower(golden.config), tmp_path_factory.mktemp(golden.config.version))


def checkpoint_of(pipeline: Pipeline) -> Path:
    return Path(str(pipeline.checkpoint_files["path"]))


def picture_of(golden: Golden) -> Image.Image:
    """The golden's image in 8 bits."""
    pixels = ((golden["image"][0] + 1) / 2 * 255).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def arguments(golden: Golden) -> dict[str, object]:
    given: dict[str, object] = {"seed": golden.seed, "decoding_t": golden.decoding_t}
    if "elevations_deg" in golden.tensors:
        given["elevations_deg"] = golden["elevations_deg"].tolist()
    return given


def subject(golden: Golden) -> Image.Image:
    """The golden's image, with alpha for sv3d: opaque but for a corner, so the object's frame is the whole picture."""
    picture = picture_of(golden)
    if golden.config.input == "object":
        picture = picture.convert("RGBA")
        picture.putpixel((0, 0), (255, 255, 255, 0))
    return picture


QUICK = {"num_frames": 2, "num_steps": 1}


@pytest.fixture(scope="module")
def plain_frames(golden: Golden, pipeline: Pipeline) -> np.ndarray:
    """Those of the golden's frames, steps and seed, which others are compared with."""
    return pipeline(subject(golden), **arguments(golden)).frames.astype(int)


def test_clip_agrees_with_the_golden_frames(golden: Golden, tmp_path: Path) -> None:
    """64x64 frames carry no watermark. The golden's image is not in 8 bits, ours is, which is most of the tolerance."""
    pipeline = saved_and_loaded(golden.config, tmp_path)
    checkpoint_of(pipeline).unlink()  # half a gigabyte
    clip = pipeline(subject(golden), **arguments(golden))
    assert clip.frames.dtype == np.uint8
    expected = golden["frames"].permute(0, 2, 3, 1).numpy() * 255
    assert clip.frames.shape == expected.shape
    assert np.abs(clip.frames + 0.5 - expected).mean() < 1
    assert np.abs(expected - expected[::-1]).mean() > 10  # the frames themselves differ by far more


def test_clip_follows_its_seed_and_not_the_clips_before_it(golden: Golden, pipeline: Pipeline) -> None:
    image = subject(golden)
    first = pipeline(image, **QUICK, seed=1)
    other = pipeline(image, **QUICK, seed=2)
    again = pipeline(image, **QUICK, seed=1)
    assert np.array_equal(first.frames, again.frames)
    assert not np.array_equal(first.frames[0], other.frames[0])


def test_record_makes_the_clip_again(golden: Golden, pipeline: Pipeline, tmp_path: Path) -> None:
    given = {**QUICK, **arguments(golden), "elevations_deg": 20.0}
    clip = pipeline(subject(golden), **given, fps=12)
    record = json.loads(json.dumps(clip.record))
    assert record["checkpoint"]["sha256"] == hashlib.sha256(checkpoint_of(pipeline).read_bytes()).hexdigest()
    assert record["output"] == {"frames": 2, "width": 64, "height": 64, "fps": 12}
    assert list(record["stages"]) == ["loading", "fitting", "conditioning", "sampling", "decoding", "watermarking"]
    parameters = record["parameters"]
    assert parameters.pop("version") == golden.config.version
    assert parameters.pop("config") == str(pipeline.config_path)
    assert parameters["cond_aug"] == golden.config.cond_aug
    assert np.array_equal(pipeline(subject(golden), **parameters).frames, clip.frames)
    if golden.config.takes_angles:
        assert record["camera"] == {"elevations_deg": [20, 20], "azimuths_deg": [180, 0]}
    else:
        assert "camera" not in record


def test_record_names_the_image_file(golden: Golden, pipeline: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    subject(golden).save(path)
    assert pipeline(subject(golden), **QUICK).record["input"]["path"] is None
    clip = pipeline(str(path), **QUICK)
    assert np.array_equal(clip.frames, pipeline(np.array(subject(golden)), **QUICK).frames)
    found = clip.record["input"]
    assert found == {
        "path": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "width": 64,
        "height": 64,
    }


def test_other_frame_counts_and_sizes(golden: Golden, pipeline: Pipeline) -> None:
    width = 64 if golden.config.input == "object" else 128
    for num_frames in (1, 3):
        clip = pipeline(subject(golden), num_frames=num_frames, num_steps=1, width=width, height=64)
        assert clip.frames.shape == (num_frames, 64, width, 3)


def test_orbit_ends_at_the_input(golden: Golden, pipeline: Pipeline) -> None:
    last = pipeline(subject(golden), **QUICK).frames[-1].astype(int)
    difference = np.abs(last - np.array(picture_of(golden)).astype(int))[1:, 1:]
    if golden.config.input == "object":
        assert difference.max() <= 1
    else:
        assert difference.mean() > 10


def test_large_frames_are_watermarked(golden: Golden, pipeline: Pipeline) -> None:
    image = subject(golden).resize((256, 256))
    clip = pipeline(image, **QUICK, width=256, height=256)
    config = pipeline.config
    settings = SamplingParameters(**QUICK, width=256, height=256).resolved_for(config)
    picture = fit(image, config, settings.framing)
    plain = pipeline.generator.generate(image_to_tensor(picture), settings, Stages())
    pixels = (plain * 255).permute(0, 2, 3, 1).numpy().astype(np.uint8)
    assert not np.array_equal(clip.frames, pixels)
    assert np.array_equal(clip.frames, embed_watermark(pixels))


def test_clip_is_saved_as_a_video(golden: Golden, pipeline: Pipeline, tmp_path: Path) -> None:
    clip = pipeline(subject(golden), **QUICK)
    (tmp_path / "clip.mp4").write_bytes(b"an earlier one")
    clip.save(tmp_path / "clip.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
    assert read_video(tmp_path / "clip.mp4").shape == clip.frames.shape


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_precision_is_that_of_the_unet_and_the_tower_alone(
    golden: Golden, pipeline: Pipeline, precision: str, dtype: torch.dtype
) -> None:
    half = load(
        pipeline.config.version,
        checkpoint=checkpoint_of(pipeline),
        config=pipeline.config_path,
        device="cpu",
        precision=precision,
    )
    types = {name: tensor.dtype for name, tensor in half.generator.model.state_dict().items() if not tensor.is_meta}
    halved = {name.split(".")[0] + "." + name.split(".")[1] for name, kind in types.items() if kind == dtype}
    assert {name for name in halved if not name.startswith("unet.")} == {"conditioner.clip"}
    assert all(
        kind == torch.float32 for name, kind in types.items() if name.startswith(("first_stage", "conditioner.v"))
    )
    frames, half_frames = (p(subject(golden), **QUICK).frames[0].astype(float) for p in (pipeline, half))
    assert 0 < np.abs(frames - half_frames).mean() < 5


@pytest.mark.parametrize("memory", ["low", "lowest"])
def test_every_memory_mode_makes_the_same_clip(
    golden: Golden, pipeline: Pipeline, plain_frames: np.ndarray, memory: str
) -> None:
    sparing = load(
        pipeline.config.version, checkpoint=checkpoint_of(pipeline), config=pipeline.config_path, memory=memory
    )
    clip = sparing(subject(golden), **arguments(golden))
    assert np.abs(clip.frames - plain_frames).max() <= 1
    assert clip.record["memory"] == memory


def test_sampling_without_memory_goes_on_in_a_lower_mode(
    golden: Golden, pipeline: Pipeline, plain_frames: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a UNet that has no room for guidance's two clips at once."""
    config = pipeline.config
    frugal = load(config.version, checkpoint=checkpoint_of(pipeline), config=pipeline.config_path, memory="high")
    tried: list[weakref.ref[torch.Tensor]] = []
    still_held: list[bool] = []

    def limited(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        still_held.extend(activation() is not None for activation in tried)
        if len(given[0]) > config.num_frames:
            activation = given[0] + 1
            tried.append(weakref.ref(activation))
            raise torch.OutOfMemoryError("CUDA out of memory (by a test)")

    hook = frugal.generator.model.unet.register_forward_pre_hook(limited)
    gc.disable()
    try:
        clip = frugal(subject(golden), **arguments(golden))
    finally:
        gc.enable()
    smaller = arguments(golden) | {"num_frames": config.num_frames // 2, "elevations_deg": 10.0, "azimuths_deg": None}
    small = frugal(subject(golden), **smaller)
    hook.remove()
    assert small.record["memory"] == "high", "other clips are not slowed"
    assert len(tried) == 1
    assert not any(still_held), "the memory of the failed try is free without waiting for the collector"
    assert capsys.readouterr().err.count("retrying with --memory low") == 1
    assert clip.record["memory"] == "low"
    assert np.abs(clip.frames - plain_frames).max() <= 1


def test_seamless_decoding_is_that_of_one_chunk(golden: Golden, pipeline: Pipeline) -> None:
    seamless = pipeline(subject(golden), **QUICK, decoding_t=1, decode="seamless").frames.astype(int)
    assert np.abs(seamless - pipeline(subject(golden), **QUICK).frames).max() <= 1
    in_chunks = pipeline(subject(golden), **QUICK, decoding_t=1).frames
    if golden.config.decoder == "temporal":
        assert np.abs(seamless - in_chunks).max() > 1


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_other_devices_make_a_clip_that_can_be_made_again(golden: Golden, pipeline: Pipeline, device: str) -> None:
    """In half precision on cuda. Each device draws noise of its own, so its clip is not the processor's."""
    if not (torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()):
        pytest.skip(f"there is no {device}")
    there = load(
        pipeline.config.version, checkpoint=checkpoint_of(pipeline), config=pipeline.config_path, device=device
    )
    clip = there(subject(golden), **arguments(golden))
    assert clip.frames.shape == golden["frames"].permute(0, 2, 3, 1).shape
    assert clip.frames.std() > 1
    assert np.array_equal(clip.frames, there(subject(golden), **arguments(golden)).frames)
    stages = clip.record["stages"]
    assert all(stages[name]["seconds"] > 0 for name in ("sampling", "decoding"))


def test_a_note_on_which_side_is_up_holds(golden: Golden, pipeline: Pipeline, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    subject(golden).rotate(90).save(tmp_path / "turned.png", exif=exif)  # what is to be turned by 90 degrees clockwise
    with Image.open(tmp_path / "turned.png") as turned:
        clip = pipeline(turned, **QUICK)
    assert np.array_equal(clip.frames, pipeline(subject(golden), **QUICK).frames)


def test_unfit_parameters_are_told(golden: Golden, pipeline: Pipeline) -> None:
    with pytest.raises(UserError, match="num_steps"):
        pipeline(subject(golden), num_steps=0)
    with pytest.raises(TypeError, match="num_step"):
        pipeline(subject(golden), num_step=3)
    with pytest.raises(UserError, match=r"fps can't be -1: give a number from 0\.1 to 240"):
        pipeline(subject(golden), fps=-1)


def test_default_device_and_precision() -> None:
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device(None).type == best
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_precision(None, torch.device("cuda")) == "fp16"
    assert choose_precision(None, torch.device("cpu")) == "fp32"
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"


def test_device_and_precision_that_are_not_there() -> None:
    with pytest.raises(UserError, match=r"'cuda:9' is not available: this machine has .*cpu"):
        choose_device("cuda:9")
    with pytest.raises(UserError, match="fp16, bf16, fp32"):
        choose_precision("fp8", torch.device("cpu"))


def test_clips_made_together_are_those_made_alone_whatever_their_order(golden: Golden, pipeline: Pipeline) -> None:
    images = [golden["image"], golden["image"].flip(3), golden["image"].roll(7, 2)]
    settings = [{"seed": 1}, {"seed": 2, "cond_aug": 0.3}, {"seed": 3, "motion_bucket_id": 9, "decoding_t": 1}]
    parameters = [SamplingParameters(**arguments(golden) | given).resolved_for(pipeline.config) for given in settings]
    generator = pipeline.generator
    alone = [
        generator.sample([image], [of_clip], Stages())[0] for image, of_clip in zip(images, parameters, strict=True)
    ]
    together = generator.sample(images, parameters, Stages())
    backwards = generator.sample(images[::-1], parameters[::-1], Stages())[::-1]
    for clip, of_three, of_reversed in zip(alone, together, backwards, strict=True):
        assert relative_error(of_three, clip) < 1e-5
        assert relative_error(of_reversed, clip) < 1e-5
    assert relative_error(alone[0], alone[1]) > 0.01


def test_memory_that_ran_out_for_several_is_the_callers_to_mend(
    golden: Golden, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **more: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("sgm.generation.frames.sample_latents", fail)
    parameters = SamplingParameters(**arguments(golden)).resolved_for(pipeline.config)
    with pytest.raises(torch.OutOfMemoryError):
        pipeline.generator.sample([golden["image"]] * 2, [parameters] * 2, Stages())
    assert pipeline.generator.placement.name == "high"


def test_frames_come_chunk_by_chunk_and_again(golden: Golden, pipeline: Pipeline) -> None:
    settings = SamplingParameters(**QUICK, decoding_t=1).resolved_for(pipeline.config)
    (take,) = pipeline.take([pipeline.prepare(subject(golden), settings)])
    frames = take.frames()
    first = next(frames)
    assert first.shape == (1, 64, 64, 3)
    assert "decoding" in take.stages.measured, "the first chunk is there before the others are decoded"
    whole = np.concatenate([first, *frames])
    assert len(whole) == settings.num_frames
    assert np.array_equal(np.concatenate(list(take.frames())), whole)


def test_every_step_can_be_watched_and_ended(golden: Golden, pipeline: Pipeline) -> None:
    seen: list[tuple[float, torch.Size]] = []
    pipeline(
        subject(golden), **QUICK | {"num_steps": 3}, watch=lambda sigma, latents: seen.append((sigma, latents.shape))
    )
    assert len(seen) == 3
    assert [sigma for sigma, _ in seen] == sorted((sigma for sigma, _ in seen), reverse=True)

    class CancelledError(Exception):
        pass

    def cancel(sigma: float, latents: torch.Tensor) -> None:
        raise CancelledError

    with pytest.raises(CancelledError):
        pipeline(subject(golden), **QUICK, watch=cancel)


@pytest.mark.parametrize("image", [None, np.zeros((4, 4), np.uint8), np.zeros((8, 8, 3), np.float32)])
def test_what_is_no_image_is_refused(pipeline: Pipeline, image: object) -> None:
    with pytest.raises(UserError, match="give a PIL image, a path, or uint8 pixels"):
        pipeline(image)


@pytest.mark.parametrize("name", ["clip.mov", "clip", "clip.mp4.txt"])
def test_a_clip_is_saved_only_as_what_it_can_be(golden: Golden, pipeline: Pipeline, tmp_path: Path, name: str) -> None:
    clip = pipeline(subject(golden), **QUICK)
    (tmp_path / name).write_bytes(b"an earlier one")
    with pytest.raises(UserError, match=r"give a name ending in one of \.mp4, \.gif, \.webp"):
        clip.save(tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"an earlier one"
    clip.save(tmp_path / "clip.GIF")
    with Image.open(tmp_path / "clip.GIF") as animation:
        assert animation.n_frames == len(clip.frames)
