"""qadvise: which recipe fits this model into this memory, and why."""
