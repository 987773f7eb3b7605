"""Models as files and as streams of decoder blocks; what the backends and the runner both stand on."""
