"""What a video is worth, as functions that know no model."""
