"""Which object keeps each descriptor of this process, and who holds that object: facts.PythonHolder's content, as plain
data. Imports the standard library only, as it is also run inside other processes.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

from leakline.own_process.holding import Roots, holding, references
from leakline.own_process.owners import opened_by_opendir, owners, type_name

BUDGET_S = 1.0  # of processor time: what other threads wait for at most
MOST = 40  # owners whose holders are sought, the newest ones: those of a leak are held alike


def held(
    numbers: Collection[int], known: Mapping[int, str] | None = None, budget_s: float = BUDGET_S
) -> tuple[list[dict[str, Any]], list[str]]:
    """For each number its state (retained, garbage, lost, unknown), the type that owns it, the chain of who holds that,
    and the module if a global does; and in words what is not known. `known`: what ends a chain, by id, in words.

    Takes 10 to 100 ms for some hundred thousand objects, and hardly more than `budget_s` seconds of processor time.
    """
    until = time.thread_time() + budget_s

    def expired() -> bool:
        return time.thread_time() > until

    found = owners(numbers, expired)
    late = expired()
    found[-1] = object()  # ours alone
    ours = {id(found)}
    roots = Roots(known or {})
    own_references = references(found[-1], roots, expired, ours)
    told: list[dict[str, Any]] = []
    asked = sorted(numbers)[-MOST:]
    unasked = opened_by_opendir([number for number in asked if number not in found])
    for number in asked:
        if number not in found:
            state = "unknown" if late or number in unasked else "lost"
            told.append({"number": number, "state": state, "type": "", "chain": (), "module": ""})
            continue
        state, chain, module = holding(found[number], roots, expired, ours, own_references)
        kind = type_name(type(found[number]))
        told.append({"number": number, "state": state, "type": kind, "chain": chain, "module": module})
    unknown = sum(each["state"] == "unknown" and each["number"] not in unasked for each in told)
    incomplete = [f"who holds {unknown} descriptors: there was no time to look at all objects"] if unknown else []
    if unasked:
        incomplete.append(f"who holds {len(unasked)} directories: iterators of a running function, or C code")
    if len(asked) < len(numbers):
        incomplete.append(f"who holds {len(numbers) - len(asked)} more: only the {MOST} highest numbers were asked for")
    return told, incomplete
