"""Devices, memory modes, offloading, 8-bit weights, compilation: where and with what a model computes."""
