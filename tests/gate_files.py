"""Reports checked against their schemas."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import jsonschema
import xmlschema

from quantrecipe.runner.results_schema import results_schema

SCHEMAS = Path(__file__).parent / "schemas"


def junit(path: Path) -> dict[str, str]:
    """Gate -> pass, failure or error, of a valid document whose counts are right."""
    xmlschema.XMLSchema(SCHEMAS / "junit.xsd").validate(path)
    (suite,) = ET.parse(path).getroot()
    cases = {case.get("name", ""): case[0].tag if len(case) else "pass" for case in suite.iter("testcase")}
    counts = [suite.get(name) for name in ("tests", "failures", "errors")]
    found = list(cases.values())
    assert counts == [str(len(found)), str(found.count("failure")), str(found.count("error"))]
    return cases


def sarif(path: Path) -> list[dict[str, Any]]:
    """The results of a valid document."""
    held = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(held, json.loads((SCHEMAS / "sarif-subset.schema.json").read_text(encoding="utf-8")))
    results: list[dict[str, Any]] = held["runs"][0]["results"]
    return results


def results(path: Path) -> dict[str, Any]:
    """A valid results.json."""
    held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(held, results_schema())
    return held
