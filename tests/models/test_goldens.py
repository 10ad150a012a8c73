"""Every tensor that the original computed with small models, module by module and as whole runs, in float32."""

import pytest
import torch
from safetensors.torch import load_file

from sgm.diffusion.edm import guidance_scales, karras_sigmas, sample_euler, start
from sgm.generation.denoiser import Solver, make_denoiser
from sgm.generation.frames import FrameGenerator
from sgm.inputs.orbit import make_orbit
from sgm.models.conditioner import Conditioning, prepare_for_clip
from sgm.models.video_model import VideoModel
from sgm.parameters.sampling import SamplingParameters
from sgm.progress import Progress
from sgm.runtime.offloading import Placement
from sgm.stages import Stages
from tests.small_models import DATA, GOLDEN_NAMES, Golden, deterministic_model, read_golden, relative_error

TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=GOLDEN_NAMES)
def golden(request: pytest.FixtureRequest) -> Golden:
    return read_golden(request.param)


@pytest.fixture(scope="module")
def model(golden: Golden) -> VideoModel:
    return deterministic_model(golden.config)


@pytest.fixture(scope="module")
def conditioning(golden: Golden, model: VideoModel) -> Conditioning:
    """From the golden's image, with the golden's own noise."""
    generator = torch.Generator().manual_seed(golden.seed)
    noise = torch.randn(golden["image"].shape, generator=generator)
    values = {"fps_id": 6, "motion_bucket_id": 127}
    if "polars_rad" in golden.tensors:
        values |= {"polar_rad": golden["polars_rad"], "azimuth_rad": golden["azimuths_rad"]}
    config = golden.config
    return model.conditioner(golden["image"], noise, config.cond_aug, values, config.num_frames)


def test_conditions(golden: Golden, conditioning: Conditioning) -> None:
    size = golden.config.clip.image_size
    assert relative_error(prepare_for_clip(golden["image"], size), golden["clip_preprocessed"]) < TOLERANCE
    for prefix, ours in (("cond", conditioning), ("uncond", conditioning.unconditional())):
        for name in ("crossattn", "concat", "vector"):
            expected = golden[f"{prefix}_{name}"]  # concat before it is repeated over frames
            found = ours.concat[:1] if name == "concat" else getattr(ours, name)
            assert relative_error(found, expected) < TOLERANCE, (prefix, name)
        assert torch.equal(ours.concat, ours.concat[:1].expand_as(ours.concat))


def test_noise_levels_and_guidance(golden: Golden) -> None:
    config = golden.config
    assert relative_error(karras_sigmas(config.num_steps), golden["sigmas"]) < TOLERANCE
    assert relative_error(guidance_scales(config.guidance, config.num_frames), golden["guidance_scale"]) < TOLERANCE


def test_one_call_of_the_unet(golden: Golden, model: VideoModel) -> None:
    context, vector = golden["cond_crossattn"], golden["cond_vector"]
    ours = model.unet(golden["unet_in"], golden["unet_timesteps"], context, vector, golden.config.num_frames)
    assert relative_error(ours, golden["unet_out"]) < TOLERANCE


def test_sampler_from_noise_to_latents(golden: Golden, model: VideoModel) -> None:
    concat = golden["cond_concat"].expand(golden.config.num_frames, -1, -1, -1)
    conditions = Conditioning(golden["cond_crossattn"], concat, golden["cond_vector"])
    denoiser = make_denoiser(model.unet, conditions, golden["guidance_scale"], Solver(golden.config.num_steps))
    assert (
        relative_error(
            sample_euler(denoiser, start(golden["noise"], golden["sigmas"]), golden["sigmas"]), golden["latents"]
        )
        < TOLERANCE
    )


def test_first_stage(golden: Golden, model: VideoModel) -> None:
    whole = model.first_stage.decode(golden["vae_in"], len(golden["vae_in"]))
    assert relative_error(whole, golden["vae_out"]) < TOLERANCE
    chunked = torch.cat(
        [model.first_stage.decode(part, len(part)) for part in golden["latents"].split(golden.decoding_t)]
    )
    assert relative_error(chunked, golden["decoded"]) < TOLERANCE


def test_whole_run_from_the_image_alone(golden: Golden, model: VideoModel) -> None:
    placement = Placement(model, torch.device("cpu"), "high")
    generator = FrameGenerator(model, placement, Progress(quiet=True))
    angles = {}
    if "elevations_deg" in golden.tensors:
        angles = {"elevations_deg": golden["elevations_deg"].tolist()}
    parameters = SamplingParameters(seed=golden.seed, decoding_t=golden.decoding_t, **angles)
    frames = generator.generate(golden["image"], parameters.resolved_for(golden.config), Stages())
    assert relative_error(frames, golden["frames"]) < TOLERANCE


def test_start_noise(golden: Golden) -> None:
    """The second draw of the clip's generator, after the image's noise."""
    generator = torch.Generator().manual_seed(golden.seed)
    torch.randn(golden["image"].shape, generator=generator)
    assert torch.equal(torch.randn(golden["noise"].shape, generator=generator), golden["noise"])


def test_orbit_of_the_path_conditioned_model() -> None:
    golden = read_golden("sv3d_p")
    orbit = make_orbit(golden.config.num_frames, golden["elevations_deg"].tolist())
    assert relative_error(torch.tensor(orbit.polars_rad), golden["polars_rad"]) < TOLERANCE
    assert relative_error(torch.tensor(orbit.azimuths_rad), golden["azimuths_rad"]) < TOLERANCE


@pytest.mark.parametrize("size", ["288x512", "300x200"])
def test_image_prepared_for_clip(size: str) -> None:
    tensors = load_file(DATA / "goldens" / "clip_preprocess.safetensors")
    image = tensors[f"in_{size}"].permute(2, 0, 1)[None] / 255 * 2 - 1
    assert relative_error(prepare_for_clip(image, 224), tensors[f"out_{size}"]) < TOLERANCE
