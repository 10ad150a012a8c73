"""Where the program's own files and the user's are, both for a checkout of the project and for an installed package.

Bundled files are next to `sgm/` in a checkout and inside it, in `sgm/bundled/`, once installed; the
`[tool.hatch.build]` tables of pyproject.toml put them there. Nothing here touches the disk except to find out which.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
INSTALLED_FILES = PACKAGE / "bundled"


def is_checkout() -> bool:
    """Whether the package runs from the project's folder, an editable installation included."""
    return not INSTALLED_FILES.is_dir()


def config_folder() -> Path:
    """`VERSION.yaml` of each model version."""
    return _bundled("configs")


def training_config_folder() -> Path:
    """`NAME.yaml` of each training."""
    return config_folder() / "training"


def example_folder() -> Path:
    """The images that clips are made from if none is given."""
    return _bundled("assets")


def bundled_checkpoint_folder() -> Path:
    """The bundled weights; in a checkout also those that the user puts next to them."""
    return _bundled("checkpoints")


def user_checkpoint_folder() -> Path:
    """Where users put weights: the project's own folder in a checkout, else one in the user's data folder.

    The latter is `~/.local/share/sgm/checkpoints` on Linux (or under XDG_DATA_HOME) and the system's equivalent
    elsewhere: an installed package's own folder may be read-only, and an upgrade empties it.
    """
    return bundled_checkpoint_folder() if is_checkout() else _user_data() / "checkpoints"


def checkpoint_folders() -> tuple[Path, ...]:
    """Where weights are looked for, in this order: bundled ones can't be overridden from outside."""
    return bundled_checkpoint_folder(), _user_data() / "checkpoints"


def output_folder(*names: str) -> Path:
    """Where results go by default: `outputs/` in the current folder."""
    return Path("outputs", *names)


def _bundled(name: str) -> Path:
    return (PACKAGE.parent if is_checkout() else INSTALLED_FILES) / name


def _user_data() -> Path:
    import platformdirs  # only needed to look for weights

    return platformdirs.user_data_path("sgm", appauthor=False)
