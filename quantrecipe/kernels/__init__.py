"""Compiled inner loops; CUDA sources come with their own issue."""
