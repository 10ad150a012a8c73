"""Files that are complete or absent, their hashes, locks, and deferring Ctrl-C."""
