"""JUnit XML: a test case a gate; a failed gate is a failure, one that could not be judged an error.

The elements and attributes are those that both Ant's report task and Jenkins' plugin accept.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from quantrecipe.runner.report.rows import GateLine, gate_rows
from quantrecipe.runner.verdict import plain

#: Characters that XML 1.0 cannot hold.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(results: Mapping[str, Any]) -> str:
    """One suite."""
    rows = gate_rows(results)
    root = ET.Element("testsuites")
    suite = ET.SubElement(root, "testsuite", _attributes(results, rows))
    _properties(suite, results)
    for row in rows:
        _case(suite, row, results)
    ET.SubElement(suite, "system-out").text = _text(plain(results["verdict"]["sentence"]))
    ET.SubElement(suite, "system-err").text = ""
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _attributes(results: Mapping[str, Any], rows: list[GateLine]) -> dict[str, str]:
    seconds = sum(stage["seconds"] for stage in results["stages"])
    return {
        "id": "0",
        "package": "quantrecipe",
        "name": "gates",
        "timestamp": results["created"].removesuffix("Z"),
        "hostname": "localhost",
        "tests": str(len(rows)),
        "failures": str(sum(row.outcome == "fail" for row in rows)),
        "errors": str(sum(row.outcome == "unsure" for row in rows)),
        "time": f"{seconds:.3f}",
    }


def _properties(suite: ET.Element, results: Mapping[str, Any]) -> None:
    properties = ET.SubElement(suite, "properties")
    for name, value in (
        ("model", results["model"]["id"]),
        ("output", results["output"]["name"]),
        ("format", results["output"]["format"]),
        ("quantrecipe", results["quantrecipe"]),
    ):
        ET.SubElement(properties, "property", name=name, value=_text(value))


def _case(suite: ET.Element, row: GateLine, results: Mapping[str, Any]) -> None:
    case = ET.SubElement(suite, "testcase", name=_text(row.name), classname="quantrecipe.gates", time="0")
    if row.outcome == "pass":
        return
    fault = ET.SubElement(case, "failure" if row.outcome == "fail" else "error", type=row.outcome)
    fault.set("message", _text(f"{row.measured}, limit {row.limit}: {row.why}"))
    named = [f"{one['name']}: {one['why']}" for one in results["suspects"]]
    fault.text = _text("\n".join([*row.faults, *(named if row.is_quality else [])]))


def _text(value: object) -> str:
    return _FORBIDDEN.sub("\ufffd", str(value))
