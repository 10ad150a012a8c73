"""Stable Video Diffusion: image to video, and orbits around an object (SV3D).

`load` is the way in from Python: `sgm.load("svd_tiny")(Image.open("photo.jpg")).save("photo.mp4")`.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from .generation.pipeline import load
else:

    def __getattr__(name: str) -> object:
        """`load` is imported, and torch with it, when it is first asked for."""
        if name != "load":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .generation.pipeline import load

        return load
