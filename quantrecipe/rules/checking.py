"""``qadvise rules check``: the faults of a pack, those of its cited rows included."""

from __future__ import annotations

from pathlib import Path

from quantrecipe.errors import did_you_mean
from quantrecipe.rules.citations import available, columns, files, select
from quantrecipe.rules.operands import RuleError
from quantrecipe.rules.pack import Pack
from quantrecipe.rules.pack_file import check_document, read_document
from quantrecipe.rules.rule import Query
from quantrecipe.safe_yaml import Document


def check_pack(path: str | Path) -> Pack | list[str]:
    """The pack, or every fault of it, one line each: file, line, what, value, what is allowed, the nearest word."""
    try:
        document = read_document(path)
    except RuleError as error:
        return [str(error)]
    found = check_document(document, str(path))
    return found if isinstance(found, list) else _evidence_faults(found, document, str(path)) or found


def _evidence_faults(pack: Pack, document: Document, name: str) -> list[str]:
    """Queries that name no file or column of ours, or select nothing."""
    faults = []
    for index, rule in enumerate(pack.rules):
        for number, part in enumerate(rule.evidence):
            error = query_fault(part.query())
            if error:
                line = document.lines.get(("rules", index, "evidence", number), 1)
                faults.append(f"{name}:{line}: rule {rule.id} evidence {number + 1}: {error}")
    return faults


def query_fault(query: Query) -> str | None:
    """What is wrong with a query; None where it selects at least one row."""
    if not available(query):
        known = files()
        return str(RuleError("no such table", value=query.file, remedy=did_you_mean(query.file, known)))
    known = columns(query.file)
    for column in (*query.where, *query.show):
        if column not in known:
            limit = f"columns: {', '.join(known)}"
            return str(RuleError("no such column", value=column, limit=limit, remedy=did_you_mean(column, known)))
    if not select(query):
        where = ", ".join(f"{column} = {' or '.join(values)}" for column, values in query.where.items())
        return str(RuleError(f"selects no row of {query.file}", value=where))
    return None
