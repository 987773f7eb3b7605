"""Looks up the rows of the published tables that a rule cites, and prints them short."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

from quantrecipe.rules.rule import Query

FOLDER = Path(__file__).parent
MAX_ROWS = 8

Row = dict[str, str]


def select(query: Query) -> list[Row]:
    """The rows that a query selects, in the table's order. Raises KeyError for a column that the file lacks."""
    rows = _table(query.file)
    wanted = {column: {_canonical(value) for value in values} for column, values in query.where.items()}
    return [row for row in rows if all(_canonical(row[column]) in values for column, values in wanted.items())]


def available(query: Query) -> bool:
    """Is the file there?"""
    return _path(query.file).is_file()


def describe(query: Query) -> list[str]:
    """The first rows of a query, one short text each."""
    return [_shown(row, query.show) if query.show else _published(row) for row in select(query)[:MAX_ROWS]]


def _path(file: str) -> Path:
    return FOLDER / file if file.startswith("guidance/") else FOLDER / "evidence" / file


@cache
def _table(file: str) -> list[Row]:
    with _path(file).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _canonical(value: str) -> str:
    """Numbers by value ("7.0" is "7"), other texts as they are."""
    try:
        return repr(float(value))
    except ValueError:
        return value.strip()


def _shown(row: Row, columns: tuple[str, ...]) -> str:
    return ", ".join(f"{column} {row[column]}" for column in columns if row[column])


def _published(row: Row) -> str:
    """A row of a paper's table: model, bits, group, method, metric, value against 16 bits."""
    group = row.get("group_size", "")
    size = f" g{group}" if group not in ("", "-1", "none") else ""
    bits = f"W{row['weight_bits']}A{row['act_bits']}{size}"
    base = f" (16-bit {row['fp16_value']})" if row["fp16_value"] else ""
    return f"{row['model']} {bits} {row['method']}: {row['metric']} {row['value']}{base}"


def columns(file: str) -> list[str]:
    """The columns of a table."""
    rows = _table(file)
    return list(rows[0]) if rows else []


def files() -> list[str]:
    """The tables that a rule can cite."""
    guidance = [f"guidance/{path.name}" for path in sorted((FOLDER / "guidance").glob("*.csv"))]
    return [path.name for path in sorted((FOLDER / "evidence").glob("*.csv"))] + guidance
