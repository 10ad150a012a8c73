"""Stable Video Diffusion: image to video, and orbits around an object (SV3D)."""

__version__ = "0.1.0"
