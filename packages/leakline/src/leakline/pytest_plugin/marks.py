"""The marker `leakline(allow=...)` of a test, checked."""

from __future__ import annotations

import pytest

from leakline.pytest_plugin.judgement import Allowed

_HINT = 'write allow=True, allow="tcp", allow="*/cache.db", or a list of these'


def marked(item: pytest.Item) -> list[Allowed]:
    """What the test may leave open. Raises pytest.UsageError for a marker without meaning."""
    rules: list[Allowed] = []
    for marker in item.iter_markers("leakline"):
        allow = marker.kwargs.get("allow")
        if marker.args or marker.kwargs.keys() - {"allow"} or not _meant(allow):
            written = [*map(repr, marker.args), *(f"{name}={value!r}" for name, value in marker.kwargs.items())]
            raise pytest.UsageError(f"{item.nodeid}: leakline({', '.join(written)}) means nothing: {_HINT}")
        if allow is True:
            rules.append("*")
        elif isinstance(allow, (list, tuple, set)):
            rules += allow
        elif allow is not None and (isinstance(allow, str) or callable(allow)):
            rules.append(allow)
    return rules


def _meant(allow: object) -> bool:
    if isinstance(allow, (list, tuple, set)):
        return all(isinstance(each, str) or callable(each) for each in allow)
    return allow is True or isinstance(allow, str) or callable(allow)
