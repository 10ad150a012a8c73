"""Where the program's own files and the user's are, alike for a checkout of the project and an installed package.

What comes with the program lies beside `sgm/` in a checkout and inside it, in `sgm/bundled/`, once it is installed; the
`[tool.hatch.build]` tables of pyproject.toml put it there. Nothing here touches the disk but to look which it is.
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
    """The images that clips are made from where none is given."""
    return _bundled("assets")


def bundled_checkpoint_folder() -> Path:
    """The weights that come with the program; in a checkout also those that the user puts beside them."""
    return _bundled("checkpoints")


def user_checkpoint_folder() -> Path:
    """Where users put weights: the project's own folder in a checkout, else that of the user's data.

    The latter is `~/.local/share/sgm/checkpoints` on Linux (or below XDG_DATA_HOME), and what the system has for it
    elsewhere: an installed package's own folder may be read-only, and an upgrade empties it.
    """
    return bundled_checkpoint_folder() if is_checkout() else _user_data() / "checkpoints"


def checkpoint_folders() -> tuple[Path, ...]:
    """Where weights are looked for, in this order. What comes with the program can't be replaced from outside it."""
    return bundled_checkpoint_folder(), _user_data() / "checkpoints"


def output_folder(*names: str) -> Path:
    """Where results go by default: `outputs/` of the folder that the user is in."""
    return Path("outputs", *names)


def _bundled(name: str) -> Path:
    return (PACKAGE.parent if is_checkout() else INSTALLED_FILES) / name


def _user_data() -> Path:
    import platformdirs  # only where weights are looked for

    return platformdirs.user_data_path("sgm", appauthor=False)
