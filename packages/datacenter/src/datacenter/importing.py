"""Finds the service that a user names: 'module:service'."""

from __future__ import annotations

import importlib
import os
import sys

from datacenter.errors import NotServableError
from datacenter.service import Service


def load(target: str) -> Service:
    """'module:name' -> the Service. Raises NotServableError, saying which part was not found."""
    module_name, colon, name = target.partition(":")
    if not colon or not module_name or not name:
        raise NotServableError(
            f"{target!r} does not name a service", "Write MODULE:SERVICE, for instance greeter:greeter."
        )
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise NotServableError(
            f"there is no module {error.name!r}",
            f"Run it where {module_name.replace('.', '/')}.py can be imported, or set PYTHONPATH.",
        ) from None
    except (ImportError, SyntaxError, TypeError, ValueError) as error:
        raise NotServableError(
            f"{module_name} cannot be imported: {type(error).__name__}: {error}",
            f"See where: python -c 'import {module_name}'.",
        ) from None
    service = getattr(module, name, None)
    if isinstance(service, Service):
        return service
    found = [key for key, value in vars(module).items() if isinstance(value, Service)]
    hint = (
        f"It has: {', '.join(f'{module_name}:{key}' for key in found)}."
        if found
        else "Make one: greeter = Service('greeter')."
    )
    raise NotServableError(f"{module_name} has no Service named {name!r}", hint)
