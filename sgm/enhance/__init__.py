"""From frames to better frames: what can be done to a clip after the model, without it."""
