"""Reports: results.json rendered as Markdown, with a plot beside it."""
