"""The Markdown report as one HTML file: its plot inside, light and dark, nothing loaded from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import Any

from quantrecipe.runner.report import markdown
from quantrecipe.runner.report.plot import layer_plot

PLOT = "quantrecipe-plot.svg"
STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --paper: #fff; --line: #d1d9e0; --shade: #f6f8fa; --link: #0969da; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #0d1117; --line: #30363d; --shade: #161b22; --link: #4493f8; }
}
body { color: var(--ink); background: var(--paper); max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1, h2 { border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid var(--line); padding: .3rem .7rem; vertical-align: top; }
thead:not(:has(th:not(:empty))) { display: none; }
tr:nth-child(2n) td { background: var(--shade); }
code, pre { font: .87em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: var(--shade); }
code { padding: .1em .3em; border-radius: 4px; overflow-wrap: anywhere; }
pre { padding: 1rem; overflow-x: auto; border-radius: 6px; } pre code { padding: 0; overflow-wrap: normal; }
blockquote { margin: 0; padding: 0 1rem; border-left: 4px solid var(--line); }
svg { max-width: 100%; height: auto; } a { color: var(--link); } details { margin: 1rem 0; }
"""


def render(results: Mapping[str, Any]) -> str:
    """The whole page."""
    from markdown_it import MarkdownIt

    text = markdown.render(results, PLOT if results["layers"] else None)
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    body = _folds(body).replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    if results["layers"]:
        plot = layer_plot(results["layers"])
        body = re.sub(rf'<img src="{PLOT}"[^>]*>', lambda _: plot, body)
    title = escape(f"{results['model']['id']}: quantization report")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def _folds(body: str) -> str:
    """The report's own folds, which are the only HTML in it; all other markup stays escaped."""
    opened = re.sub(
        r"<p>&lt;details&gt;&lt;summary&gt;([^<]*?)&lt;/summary&gt;</p>", r"<details><summary>\1</summary>", body
    )
    return opened.replace("<p>&lt;/details&gt;</p>", "</details>")
