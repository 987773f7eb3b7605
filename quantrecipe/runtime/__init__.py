"""Quantized checkpoints that run in quantized memory: layers that keep their codes, and models made of them."""
