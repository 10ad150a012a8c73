"""Rendered pictures and clips to train on and to measure with."""
