"""What a text adapter's file says of itself: that it is one, and how the encoder and the attention in it are built.

A .safetensors file with these metadata: `kind`, which is KIND; `version`, the one that it was trained for; and `text`,
a `TextConfig` in JSON. Its tensors are checked where they are read, in `sgm.checkpoint`; this needs no torch, so that a
file which is no adapter is reported at once.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from ..config import NO_TEXT, ModelConfig, TextConfig
from ..errors import UserError
from ..storage.data_files import as_dataclass
from ..storage.files import open_regular

KIND = "sgm text adapter"
MAX_HEADER_BYTES = 2**20  # that of a full-size adapter has 20 KiB


def adapter_metadata(config: ModelConfig) -> dict[str, str]:
    """The metadata of an adapter that was trained for this model."""
    return {"format": "pt", "kind": KIND, "version": config.version, "text": json.dumps(asdict(config.text))}


def with_text_adapter(config: ModelConfig, path: Path) -> ModelConfig:
    """The configuration of a version together with an adapter, which reads text.

    Raises UserError for a file that is no adapter, and for a version that none goes with.
    """
    if config.input != "picture":
        raise UserError(f"{config.version} takes no text_adapter, since its motion is an orbit: omit it")
    if config.takes_prompts:
        raise UserError(f"{config.version} reads text by itself: omit text_adapter")
    text: TextConfig = as_dataclass(TextConfig, _described(path), f"text_adapter {path.name}")
    if complaint := contradiction(text, config):
        raise UserError(f"text_adapter {path} can't be one for {config.version}: {complaint}; give another")
    return replace(config, text=text)


def contradiction(text: TextConfig, config: ModelConfig) -> str:
    """What makes an adapter of this structure impossible beside a version; empty where nothing does."""
    if text.tokens == 0:
        return "it has no tokens"
    if text.width % text.heads:
        return f"its width {text.width} is not divisible by its heads ({text.heads})"
    if text.encoder == "ViT-H-14" and text.tokens < 3:
        return f"CLIP's text tower has no room for a word in {text.tokens} tokens"
    if text.encoder == "ViT-H-14" and text.width != config.unet.context_dim:
        return f"its tokens are {text.width} wide, but those of {config.version} {config.unet.context_dim}"
    return ""


def without_text(config: ModelConfig) -> ModelConfig:
    """The configuration of the version alone."""
    return replace(config, text=NO_TEXT)


def _described(path: Path) -> object:
    """What the file says of its encoder and attention."""
    try:
        with open_regular(path) as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= MAX_HEADER_BYTES:
                raise _no_adapter(path, "it isn't a .safetensors file, or has too long a header")
            header = json.loads(file.read(length))
        if header["__metadata__"]["kind"] != KIND:
            raise _no_adapter(path, "it is another kind of file")
        return json.loads(header["__metadata__"]["text"])
    except OSError as error:
        raise UserError(
            f"text_adapter {path} can't be read ({error.strerror}): give a .safetensors file made for it"
        ) from error
    except UserError:
        raise
    except (ValueError, LookupError, TypeError, RecursionError):
        raise _no_adapter(path, f"its metadata don't say kind {KIND!r}") from None


def _no_adapter(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is no text adapter ({reason}): give one that python -m sgm.training has made")
