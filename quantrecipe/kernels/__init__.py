"""Compiled inner loops of the native backend; GPTQ's on CPU so far."""
