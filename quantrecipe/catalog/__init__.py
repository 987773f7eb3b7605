"""Known models as data (YAML, compiled to one JSON file), and every other way to learn a model's shape."""
