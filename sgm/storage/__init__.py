"""Files that are whole or absent, locks, Ctrl-C that waits, and hashes."""
