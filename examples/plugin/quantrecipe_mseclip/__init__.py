"""An example plugin: int8 per row with clipped ranges."""
