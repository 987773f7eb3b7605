"""Function-preserving rewrites before quantization; importing a module registers what it brings."""
