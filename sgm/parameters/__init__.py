"""What can be requested: from words on a command line to a checked request."""
