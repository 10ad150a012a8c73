"""Diffusion in its EDM form (arXiv:2206.00364): pure functions that know no model."""
