"""Hooks, their manager, and the first-party backends."""
