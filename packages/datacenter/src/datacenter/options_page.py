"""docs/options.md, made from the table of options: `python -m datacenter.options_page > docs/options.md`."""

from __future__ import annotations

import importlib
import sys

from datacenter.options import GROUPS, TABLE, Option

#: the modules that enter options, in the order in which the page shows them within a group
SOURCES = (
    "datacenter.options",
    "datacenter.sockets.options",
    "datacenter.sockets.descriptor_limit",
    "datacenter.sockets.hub",
    "datacenter.broker.relay_reports",
    "datacenter.broker.relay_life",
    "datacenter.broker.relay_manager",
    "datacenter.gateway.health",
    "datacenter.gateway.options",
)

_HEAD = """\
# Options

Every option, with its default, its unit, the incident behind it (the letters are those of
[from-the-incidents.md](from-the-incidents.md)), and why it has this value. Names end in their unit. This page is made
from the code: `make docs-options`.
"""


def render() -> str:
    """The page as Markdown text."""
    for source in SOURCES:
        importlib.import_module(source)
    parts = [_HEAD]
    for group, about in GROUPS.items():
        rows = [_row(entry) for entry in TABLE.values() if entry.group == group]
        if rows:
            parts.append(
                f"\n## {group}: {about}\n\n| option | default | unit | incident | why |\n|---|---|---|---|---|\n"
            )
            parts.extend(rows)
    return "".join(parts)


def _row(entry: Option) -> str:
    default = (
        "none"
        if entry.default in (b"", "")
        else str(entry.default).lower()
        if isinstance(entry.default, bool)
        else str(entry.default)
    )
    return f"| `{entry.name}` | {default} | {entry.unit or '–'} | {entry.incident or '–'} | {entry.why} |\n"


if __name__ == "__main__":
    sys.stdout.write(render())
