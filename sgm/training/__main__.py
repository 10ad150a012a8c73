"""`python -m sgm.training CONFIG`: trains one part of a small model, resuming a stopped run where it left off."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ..checkpoint.text_adapter import save_text_adapter
from ..config import load_config
from ..models.conditioner import CLIPImageTower
from ..models.video_model import VideoModel
from ..parameters.choices import device_parameter
from ..parameters.command_line import Command, run
from ..parameters.parameter import PATH, WHOLE, parameter, read_fields
from ..progress import Progress
from ..runtime.devices import choose_device
from ..storage.files import file_sha256, output_folder, write_whole
from .config import TrainingConfig, find_training_config, load_training_config
from .decoder import DecoderObjective, start_decoder
from .decoder_start import fit_decoder
from .denoising import DenoisingObjective, start_unet
from .encoder import fit_encoder
from .image_tower import ImageTowerObjective
from .initialization import take_weights
from .loop import Objective, Trainer
from .report import SMOOTHING_STEPS, save_loss_plot, save_sheet
from .state import load_state, save_state
from .text_adapter import start_text_adapter

OBJECTIVES: dict[str, Callable[[VideoModel, TrainingConfig, torch.device], Objective]] = {
    "autoencoder": DecoderObjective,
    "decoder": DecoderObjective,
    "temporal_decoder": DecoderObjective,
    "image_tower": ImageTowerObjective,
    "unet": DenoisingObjective,
    "unet_and_image_tower": DenoisingObjective,
    "text_adapter": DenoisingObjective,
}


@dataclass(frozen=True)
class TrainingRequest:
    """A training as requested on the command line. Raises UserError for a value that isn't allowed."""

    config_file: Path = parameter(
        Path(),
        PATH,
        "The run: a YAML file, or the name of a bundled one, such as decoder (see configs/training/).",
        default_text="none",
    )
    output_folder: Path = parameter(
        None,
        PATH,
        "Where states, weights, the loss plot and the sample sheets go. Training resumes from a state already there.",
        default_text="outputs/training/CONFIG_FILE's name",
    )
    device: str | None = device_parameter()
    steps: int | None = parameter(
        None, WHOLE, "The number of the last step.", low=1, high=10**9, default_text="the configuration's"
    )

    def __post_init__(self) -> None:
        read_fields(self)
        object.__setattr__(self, "config_file", find_training_config(self.config_file))
        if self.output_folder is None:
            object.__setattr__(self, "output_folder", output_folder("training", self.config_file.stem))


def build_model(config: TrainingConfig) -> VideoModel:
    """The version's model in float32, with the weights of `start_from` if the run has one, else random by the seed.

    An image tower always starts from random weights: one already trained for something else stops learning.
    """
    torch.manual_seed(config.seed)
    if config.part == "text_adapter":
        return start_text_adapter(config)
    model = VideoModel(load_config(config.version))
    start_unet(model.unet)
    assert model.first_stage.decoder is not None
    start_decoder(model.first_stage.decoder)
    if config.part in ("autoencoder", "decoder"):
        fit_encoder(model.conditioner.vae, model.config, config.data, config.size, config.seed)
    if config.part == "autoencoder":
        fit_decoder(model, config)
    if config.start_from:
        take_weights(model, Path(config.start_from))
    if config.part == "image_tower":
        model.conditioner.clip = CLIPImageTower(model.config.clip)
    return model


def run_identity(config: TrainingConfig) -> dict[str, Any]:
    """What two runs must share for one to resume from the other's state: all but where they end and when they save."""
    identity = {name: value for name, value in asdict(config).items() if name not in ("steps", "sheet_every")}
    if config.text.tokens == 0:  # as in the states of runs that know no adapters
        del identity["text"]
    if config.start_from:
        identity["start_sha256"] = file_sha256(Path(config.start_from))
    return identity


def train(request: TrainingRequest) -> None:
    """Run the requested training, resuming from the state in its output folder if there is one."""
    config = load_training_config(request.config_file)
    if request.steps is not None:
        config = replace(config, steps=request.steps)
    where = choose_device(request.device)
    folder = request.output_folder
    folder.mkdir(parents=True, exist_ok=True)

    model = build_model(config).to(where)
    identity = run_identity(config)
    objective = OBJECTIVES[config.part](model, config, where)
    trainer = Trainer(model, config)
    losses: list[float] = []
    if (state := load_state(folder, identity)) is not None:
        trainer.resume(*state)
        losses = json.loads((folder / "losses.json").read_text())[: trainer.step]

    saved = trainer.step
    progress = Progress()

    def save() -> None:
        nonlocal saved
        # Losses first: a run stopped between the two writes resumes from the earlier state and drops the surplus.
        write_whole(folder / "losses.json", lambda aside: aside.write_text(json.dumps(losses)))
        save_state(folder, trainer.step, trainer.state(), identity)
        saved = trainer.step
        save_loss_plot(losses, folder / "loss.png")
        with trainer.averaged():
            save_sheet(objective.sheet(), folder / f"sheet-{trainer.step:06d}.png")
            if config.part == "text_adapter":
                save_text_adapter(model, folder / "text_adapter.safetensors")
            else:
                save_weights(model, folder / "weights.safetensors")
        recent = losses[-SMOOTHING_STEPS:]
        progress.say(f"step {saved} of {config.steps} is saved; mean loss {sum(recent) / len(recent):.4f}")

    name = f"training from step {trainer.step}" if trainer.step else "training"
    try:
        with progress.stage(name, max(config.steps - trainer.step, 0), unit="step") as advance:
            for step in trainer.run(objective):
                losses.append(step.loss)
                advance(1)
                if step.number % config.sheet_every == 0 and step.number < config.steps:
                    save()
        save()
    except KeyboardInterrupt:
        progress.say(what_is_saved(folder, saved))
        raise


def what_is_saved(folder: Path, step: int) -> str:
    """What a stopped run leaves behind; `step` is the last one saved, or 0."""
    if step == 0:
        return "nothing has been saved yet: the same command starts over"
    return f"step {step} is saved in {folder}: the same command resumes from there"


def save_weights(model: VideoModel, path: Path) -> None:
    """Write the model as a single-file checkpoint in float16, with the released tensor names."""
    state = model.state_dict()
    tensors = {key: state[name].to("cpu", torch.float16).contiguous() for name, key in model.checkpoint_keys()}
    write_whole(path, lambda aside: save_file(tensors, aside))


COMMAND = Command[TrainingRequest](
    usage="python -m sgm.training CONFIG_FILE",
    purpose="Trains one part of a small model.",
    kinds=(TrainingRequest,),
    leading=("config_file",),
    example="--steps 300",
)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command with the arguments `words`; returns the exit code (see `command_line.run`)."""
    return run(COMMAND, train, words)


if __name__ == "__main__":
    sys.exit(main())
