"""What happens to finished frames before they are written: stages from frames to frames that know no model."""
