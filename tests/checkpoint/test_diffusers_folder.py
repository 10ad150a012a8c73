"""diffusers' folder, against diffusers' and transformers' own classes: they read what we write, we what they write.

That both compute the same is shown for each network here or in tests/models/test_diffusers.py.
"""

import json
import shutil
from pathlib import Path

import diffusers
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sgm.checkpoint.diffusers_configs import write_configs
from sgm.checkpoint.files import COMPONENTS
from sgm.checkpoint.loading import OPTIONAL_PARTS, diffusers_folder, load_model, single_file
from sgm.config import ModelConfig, load_config
from sgm.models.conditioner import prepare_for_clip
from sgm.models.video_model import VideoModel, empty_model, is_used_when_sampling
from tests.models.test_diffusers import relative_difference
from tests.small_models import deterministic_model, key_list

STRUCTURES = ("svd", "svd_image_decoder", "sv3d_u", "sv3d_p")


def their_classes(folder: Path) -> dict[str, tuple[type, dict[str, object]]]:
    """The class of each component, and the configuration that the folder gives for it."""
    configs = {component: json.loads((folder / component / "config.json").read_text()) for component in COMPONENTS}
    classes = {component: getattr(diffusers, configs[component]["_class_name"]) for component in ("unet", "vae")}
    return {
        **{component: (classes[component], configs[component]) for component in classes},
        "image_encoder": (transformers.CLIPVisionModelWithProjection, configs["image_encoder"]),
    }


def built(component: str, kind: type, config: dict[str, object]) -> nn.Module:
    if component == "image_encoder":
        return kind(transformers.CLIPVisionConfig.from_dict(config))
    return kind.from_config(config)


@pytest.mark.parametrize("version", STRUCTURES)
def test_every_key_of_the_released_models_is_one_of_diffusers_and_the_other_way_round(
    version: str, tmp_path: Path
) -> None:
    model = empty_model(load_config(version))
    write_configs(tmp_path, model.config)
    with torch.device("meta"):
        theirs = {
            f"{component}/{key}": tuple(tensor.shape)
            for component, (kind, config) in their_classes(tmp_path).items()
            for key, tensor in built(component, kind, config).state_dict().items()
        }
    released, in_file = key_list(version), single_file(model)
    pairs = [
        (in_file[name].keys[0], key, shape)
        for name, place in diffusers_folder(model).items()
        for key, shape in place.shapes(released[in_file[name].keys[0]]).items()
    ]
    assert {key: shape for _, key, shape in pairs} == theirs
    assert len(pairs) == len(theirs), "no two go to one key"
    without = released.keys() - {key for key, _, _ in pairs}
    names = {key: name for name, key in model.checkpoint_keys()}
    assert all(
        names[key].startswith(OPTIONAL_PARTS) and not is_used_when_sampling(names[key])
        if key in names
        else key.startswith("conditioner.embedders.0.open_clip.model.")
        for key in without
    )


@pytest.mark.parametrize("component", COMPONENTS)
def test_their_classes_read_our_folder_strictly(svd_folder: Path, component: str) -> None:
    kind, _ = their_classes(svd_folder)[component]
    network, told = kind.from_pretrained(svd_folder / component, output_loading_info=True)
    assert not any(told.values()), told
    stored = load_file(svd_folder / component / f"{COMPONENTS[component]}.safetensors")
    assert network.state_dict().keys() == stored.keys()
    assert all(torch.equal(tensor, stored[key]) for key, tensor in network.state_dict().items())


def write_theirs(folder: Path, svd_folder: Path, seed: int = 0, **how: object) -> dict[str, nn.Module]:
    """The three networks as their own libraries build, fill and save them."""
    networks = {}
    for component, (kind, config) in their_classes(svd_folder).items():
        torch.manual_seed(seed)
        networks[component] = built(component, kind, config).eval().requires_grad_(False)
        for parameter in networks[component].parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))  # biases and mixes start as zeros and halves
        networks[component].save_pretrained(folder / component, **how)
    return networks


def loaded(config: ModelConfig, folder: Path) -> VideoModel:
    return load_model(config, folder, device=torch.device("cpu"), dtype=torch.float32)


def test_their_weights_compute_in_our_model_what_they_compute_in_theirs(
    svd_config: ModelConfig, svd_folder: Path, tmp_path: Path
) -> None:
    theirs = write_theirs(tmp_path, svd_folder)
    ours = loaded(svd_config, tmp_path)
    images = torch.rand(2, 3, 64, 96) * 2 - 1
    pixels = prepare_for_clip(images, svd_config.clip.image_size)
    assert relative_difference(ours.conditioner.clip(images), theirs["image_encoder"](pixels).image_embeds) < 1e-5
    mean = theirs["vae"].encode(images).latent_dist.mean
    assert relative_difference(ours.conditioner.vae.encode(images), mean) < 1e-5
    latents = torch.randn(3, 4, 8, 12)
    frames = theirs["vae"].decode(latents / svd_config.vae.scale_factor, 3).sample
    assert relative_difference(ours.first_stage.decode(latents, 3), frames) < 1e-5
    for module in theirs["unet"].modules():
        if isinstance(module, nn.GroupNorm) and module.eps == 1e-6:
            module.eps = 1e-5  # as released, see tests/models/test_diffusers.py
    for module in theirs["unet"].modules():
        if isinstance(module, diffusers.models.transformers.transformer_temporal.TransformerSpatioTemporalModel):
            module.norm.eps = 1e-6
    x, context = torch.randn(1, 3, 8, 8, 8), torch.randn(1, 1, 32)
    scalars, noise = torch.tensor([[6.0, 127.0, 0.02]]), torch.tensor([0.5])
    expected = theirs["unet"](x, noise, context, scalars).sample.flatten(0, 1)
    vector = theirs["unet"].add_time_proj(scalars.flatten()).reshape(1, -1)
    got = ours.unet(x.flatten(0, 1), noise.repeat(3), context, vector.repeat(3, 1), num_frames=3)
    assert relative_difference(got, expected) < 1e-5


def state_of(model: VideoModel) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if is_used_when_sampling(name)}


@pytest.mark.parametrize(
    "how", [{"max_shard_size": "200KB"}, {"variant": "fp16"}, {"variant": "fp16", "max_shard_size": "200KB"}], ids=str
)
def test_shards_and_variants_are_read_as_their_libraries_write_them(
    svd_config: ModelConfig, svd_folder: Path, tmp_path: Path, how: dict[str, object]
) -> None:
    theirs = write_theirs(tmp_path, svd_folder, **how)
    expected = {f"{c}/{key}": tensor for c, network in theirs.items() for key, tensor in network.state_dict().items()}
    if "max_shard_size" in how:
        assert len(list((tmp_path / "unet").glob("*-of-*.safetensors"))) > 1
    model = loaded(svd_config, tmp_path)
    state = state_of(model)
    for name, place in diffusers_folder(model).items():
        if name in state:
            for key, tensor in place.take_apart(state[name]).items():
                assert torch.equal(tensor, expected[key]), key


def test_full_precision_is_preferred_to_fp16(svd_config: ModelConfig, svd_folder: Path, tmp_path: Path) -> None:
    write_theirs(tmp_path, svd_folder, variant="fp16")
    halved = state_of(loaded(svd_config, tmp_path))
    write_theirs(tmp_path, svd_folder, seed=1)
    both = state_of(loaded(svd_config, tmp_path))
    for half in tmp_path.glob("*/*fp16*"):
        half.unlink()
    full = state_of(loaded(svd_config, tmp_path))
    assert all(torch.equal(both[name], full[name]) for name in full)
    assert any(not torch.equal(both[name], halved[name]) for name in full)


def test_a_folder_computes_what_its_file_computes(svd_config: ModelConfig, svd_file: Path, svd_folder: Path) -> None:
    from_file, from_folder = state_of(loaded(svd_config, svd_file)), state_of(loaded(svd_config, svd_folder))
    assert from_file.keys() == from_folder.keys()
    assert all(torch.equal(from_file[name], from_folder[name]) for name in from_file)
    expected = state_of(deterministic_model(svd_config))
    assert all(torch.equal(from_file[name], expected[name]) for name in expected)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers' scheduler
def test_diffusers_pipeline_runs_from_our_folder(svd_folder: Path) -> None:
    pipeline = diffusers.StableVideoDiffusionPipeline.from_pretrained(svd_folder)
    pipeline.set_progress_bar_config(disable=True)
    image = Image.radial_gradient("L").convert("RGB").resize((64, 64))
    frames = pipeline(image, height=64, width=64, num_frames=3, num_inference_steps=2, output_type="pt").frames
    assert frames.shape == (1, 3, 3, 64, 64)
    assert pipeline.scheduler.config.sigma_max == 700
    assert frames.isfinite().all()


def test_old_position_numbers_of_transformers_are_passed_over(
    svd_config: ModelConfig, svd_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(svd_folder, tmp_path / "old")
    file = folder / "image_encoder" / "model.safetensors"
    numbers = {"vision_model.embeddings.position_ids": torch.arange(17)[None]}
    save_file(load_file(file) | numbers, file)
    loaded(svd_config, folder)
