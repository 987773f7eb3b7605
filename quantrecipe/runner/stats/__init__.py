"""Tests against a limit and intervals, for means over a text, for shares and for tasks; and how error is spent."""
