"""Files that are whole or absent, their hashes, locks, and Ctrl-C that waits."""
