"""The report as one JSON object, schema 1: the contract of the interface (see docs/findings.md)."""

from __future__ import annotations

from leakline.observe import Report


def render(report: Report) -> str:
    """One line of JSON."""
    return report.to_json().decode()
