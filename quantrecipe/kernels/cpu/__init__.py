"""CPU implementations of the operators."""
