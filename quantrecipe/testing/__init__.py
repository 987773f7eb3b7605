"""A conformance kit for backends: a pytest class that its author subclasses (docs/backends/conformance.md)."""

from quantrecipe.testing.conformance import BackendConformance
from quantrecipe.testing.model import tiny_model

__all__ = ["BackendConformance", "tiny_model"]
