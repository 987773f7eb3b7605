"""Launchers of the CUDA kernels; each module enters its operators for CUDA tensors when it is imported."""
