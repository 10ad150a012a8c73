"""From a picture to frames: fit, condition, sample, decode."""
