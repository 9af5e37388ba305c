"""A served function: its signature as types, so that arguments are checked before it runs and errors name the
argument. Pure.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any, get_type_hints

import msgspec
from msgspec import Raw

from datacenter import wire
from datacenter.errors import BadArgumentsError, NotServableError

_decode_values = msgspec.msgpack.Decoder(list[Any]).decode
_decode_keywords = msgspec.msgpack.Decoder(dict[str, Any]).decode


class Method:
    """One method of a service, made from a type-annotated function.

    `is_async`: its function is a coroutine function. `idempotent`: it may run twice for one call. Immutable,
    thread-safe. Raises NotServableError for what cannot be served: a name or a parameter kind or an annotation that
    the wire does not carry.
    """

    def __init__(self, function: Callable[..., Any], name: str, *, idempotent: bool) -> None:
        self.name = wire.check_name("method", name)
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function)
        self.idempotent = idempotent
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise NotServableError(f"{name} is a generator: streams cannot be served", "Return a list.")
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise NotServableError(f"{name} has no signature: {error}", "Serve a function of your own.") from error
        try:
            hints = get_type_hints(function)
        except Exception as error:
            raise NotServableError(
                f"the annotations of {name} cannot be read: {error}",
                "Annotate with types that are importable at module level.",
            ) from error
        self.signature = str(_with_types(signature, hints))
        self._parameters = tuple(signature.parameters)
        fields = [_field(name, parameter, hints) for parameter in signature.parameters.values()]
        try:
            self._arguments = msgspec.defstruct("Arguments", fields, array_like=True, forbid_unknown_fields=True)
            self._decode = msgspec.msgpack.Decoder(self._arguments).decode
        except TypeError as error:
            raise NotServableError(
                f"the parameters of {name} cannot be decoded: {error}",
                "Use types that msgspec decodes: numbers, str, bytes, list, dict, dataclasses, msgspec.Struct.",
            ) from error
        self._no_parameters = not fields

    def arguments(self, args: Raw, keywords: Raw) -> tuple[Any, ...]:
        """The checked positional arguments of one call. Raises BadArgumentsError."""
        try:
            if keywords == wire.NO_KEYWORDS:
                if self._no_parameters and args == b"\x90":
                    return ()
                decoded = self._decode(args)
            else:
                return self._bind(args, keywords)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BadArgumentsError(
                f"{self.name}{self.signature}: {self._explained(args, str(error))}",
                "Call it with arguments of these types.",
            ) from None
        return msgspec.structs.astuple(decoded)

    def description(self) -> wire.Method:
        return wire.Method(self.name, self.signature, self.idempotent)

    def _bind(self, args: Raw, keywords: Raw) -> tuple[Any, ...]:
        values = dict(zip(self._parameters, positional := _decode_values(args), strict=False))
        named = _decode_keywords(keywords)
        if len(positional) > len(self._parameters):
            raise msgspec.ValidationError(self._wrong_count(len(positional)))
        for keyword in named:
            if keyword not in self._parameters:
                raise msgspec.ValidationError(f"there is no parameter {keyword!r}")
            if keyword in values:
                raise msgspec.ValidationError(f"{keyword!r} was given twice")
        values |= named
        row: list[Any] = []
        for field in msgspec.structs.fields(self._arguments):
            if field.name in values:
                row.append(_converted(values[field.name], field.type, field.name))
            elif field.default is not msgspec.NODEFAULT:
                row.append(field.default)
            elif field.default_factory is not msgspec.NODEFAULT:
                row.append(field.default_factory())
            else:
                raise msgspec.ValidationError(f"{field.name!r} is missing")
        return tuple(row)

    def _explained(self, args: Raw, text: str) -> str:
        """msgspec sees an array, and says `$[1]` and "at least length 2"; the caller wants names and counts."""
        if text.startswith("Expected `array` of at"):
            return self._wrong_count(len(_decode_values(args)))
        for number, name in enumerate(self._parameters):
            text = text.replace(f"`$[{number}]", f"`{name}")
        return text

    def _wrong_count(self, given: int) -> str:
        most = len(self._parameters)
        least = sum(field.required for field in msgspec.structs.fields(self._arguments))
        takes = f"{most}" if least == most else f"{least} to {most}"
        return f"takes {takes} arguments, {given} were given"


def _converted(value: Any, type_: Any, name: str) -> Any:
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        text = str(error)
        raise msgspec.ValidationError(
            text.replace("`$", f"`{name}") if "`$" in text else f"{text} - at `{name}`"
        ) from None


def _with_types(signature: inspect.Signature, hints: dict[str, Any]) -> inspect.Signature:
    """The signature with types where `from __future__ import annotations` left strings."""
    parameters = [
        parameter.replace(annotation=hints.get(name, parameter.annotation))
        for name, parameter in signature.parameters.items()
    ]
    returns = hints.get("return", signature.return_annotation)
    return signature.replace(parameters=parameters, return_annotation=None if returns is type(None) else returns)


def _field(method: str, parameter: inspect.Parameter, hints: dict[str, Any]) -> tuple[str, Any, Any] | tuple[str, Any]:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.POSITIONAL_ONLY):
        raise NotServableError(
            f"{method} takes {parameter}: only plain parameters can be served",
            "Take a list or a dict as one plain parameter.",
        )
    type_ = hints.get(parameter.name, Any)
    if parameter.default is parameter.empty:
        return parameter.name, type_
    if isinstance(parameter.default, (list, dict, set, bytearray)):
        return parameter.name, type_, msgspec.field(default_factory=partial(copy, parameter.default))
    return parameter.name, type_, parameter.default
