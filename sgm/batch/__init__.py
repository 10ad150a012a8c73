"""Many clips in one run: which there are to make, which are done, who makes them, and what came of each."""
