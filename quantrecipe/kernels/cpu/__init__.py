"""CPU implementations of the operators: compiled loops, and torch's own products where they are faster."""
