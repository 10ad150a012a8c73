"""`python -m sgm.training CONFIG`: trains one part of a small model, and goes on where a stopped run left off."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import fire
import torch
from safetensors.torch import save_file
from tqdm import tqdm

from ..config import load_config
from ..errors import UserError
from ..models.video_model import VideoModel
from ..outputs.whole_file import write_whole
from .config import TrainingConfig, load_training_config
from .decoder import DecoderObjective, start_decoder
from .denoising import DenoisingObjective, start_unet
from .encoder import fit_encoder
from .loop import Trainer
from .report import save_loss_plot, save_sheet
from .start import take_weights


def build_model(config: TrainingConfig) -> VideoModel:
    """The version's model in float32, with the start's weights where the run has a start, else random by the seed."""
    torch.manual_seed(config.seed)
    model = VideoModel(load_config(config.version))
    start_unet(model.unet)
    assert model.first_stage.decoder is not None
    start_decoder(model.first_stage.decoder)
    if config.part == "decoder":
        fit_encoder(model.conditioner.vae, config.size, config.seed)
    if config.start_from:
        take_weights(model, Path(config.start_from))
    return model


def train(
    config_file: str, output_folder: str | None = None, device: str | None = None, steps: int | None = None
) -> None:
    """Train one part of a small model.

    Args:
        config_file: a YAML file of `configs/training/`.
        output_folder: where states, weights, the loss plot and the sheets go; by default
            outputs/training/<the file's name>. A state there is gone on from.
        device: cuda or cpu; by default cuda where there is one.
        steps: the number of the last step, instead of the configuration's.
    """
    config = load_training_config(Path(config_file))
    if steps is not None:
        config = replace(config, steps=steps)
    folder = Path(output_folder or Path("outputs/training") / Path(config_file).stem)
    folder.mkdir(parents=True, exist_ok=True)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    model = build_model(config).to(where)
    objective = (DenoisingObjective if config.part == "unet" else DecoderObjective)(model, config, where)
    trainer = Trainer(model, config)
    losses: list[float] = []
    state = folder / "state.safetensors"
    if state.exists():
        trainer.load(state)
        losses = json.loads((folder / "losses.json").read_text())[: trainer.step]

    def save() -> None:
        # The losses first: a run that is stopped between the two goes on from the earlier state and drops the surplus.
        write_whole(folder / "losses.json", lambda aside: aside.write_text(json.dumps(losses)))
        trainer.save(state)
        save_loss_plot(losses, folder / "loss.png")
        with trainer.averaged():
            save_sheet(objective.sheet(), folder / f"sheet-{trainer.step:06d}.png")
            save_weights(model, folder / "weights.safetensors")

    bar = tqdm(total=config.steps, initial=trainer.step, unit="step", disable=None)
    for step in trainer.run(objective):
        losses.append(step.loss)
        bar.update()
        bar.set_postfix(loss=f"{sum(losses[-100:]) / len(losses[-100:]):.4f}")
        if step.number % config.sheet_every == 0:
            save()
    bar.close()
    save()


def save_weights(model: VideoModel, path: Path) -> None:
    """Writes the model as a single-file checkpoint under the released names, in float16."""
    state = model.state_dict()
    tensors = {key: state[name].to("cpu", torch.float16).contiguous() for name, key in model.checkpoint_keys()}
    write_whole(path, lambda aside: save_file(tensors, aside))


if __name__ == "__main__":
    try:
        fire.Fire(train)
    except UserError as error:
        sys.exit(f"error: {error}")
