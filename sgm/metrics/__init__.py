"""How good a video is, measured by functions that know nothing of models."""
