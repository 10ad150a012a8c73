"""What may be asked for: from words to a checked request."""
