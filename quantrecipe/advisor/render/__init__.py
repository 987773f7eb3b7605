"""The answer as terminal text, JSON, YAML or Markdown."""
