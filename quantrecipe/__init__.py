"""quantrecipe: which quantization fits this memory, why, and is the result still good?"""

__version__ = "0.1.0"
