"""Devices, memory modes, offloading, 8-bit weights, compilation: where and how a model computes."""
