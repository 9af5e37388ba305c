"""A service: type-annotated functions that other processes call by name.

    greeter = Service("greeter")

    @greeter.method
    def hello(name: str) -> str:
        return f"Hello, {name}!"

`datacenter serve module:greeter` runs it; `await serve(greeter)` runs it inside your own program.

`async def` methods run in the event loop, each call a task. `def` methods run in a pool of threads, so they may block.
Arguments are decoded into the annotated types before the function runs; a result is encoded as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from datacenter import wire
from datacenter.errors import NotServableError
from datacenter.methods import Method

F = TypeVar("F", bound=Callable[..., Any])


class Service:
    """A name and its methods. Made at import time; holds no socket, so it may be forked, pickled by name, served
    twice.

    leased: for what must not be done by an instance that others believe dead. Calls are executed only while its lease
    is certain (`Server.lease_left_s`): one that comes when it is not is refused unexecuted (`moved`), and one that ends
    when it is not any more is answered `lost`. Without it an instance serves on while the broker is away.
    """

    def __init__(self, name: str, *, metadata: dict[str, str] | None = None, leased: bool = False) -> None:
        self.name = wire.check_name("service", name)
        self.leased = leased
        self.metadata = dict(metadata or {})
        for key, value in self.metadata.items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise NotServableError(f"metadata {key!r}: {value!r} of {name} is no text", "Use strings for both.")
        self.methods: dict[str, Method] = {}

    @overload
    def method(self, function: F, /) -> F: ...
    @overload
    def method(self, /, *, name: str | None = None, idempotent: bool = False) -> Callable[[F], F]: ...

    def method(
        self, function: F | None = None, /, *, name: str | None = None, idempotent: bool = False
    ) -> F | Callable[[F], F]:
        """Serves a function under its own name, or another. Raises NotServableError for what cannot be served.

        idempotent: running it twice does no harm, so a call whose outcome is unknown is sent again.
        """

        def add(served: F) -> F:
            method = Method(served, name or str(getattr(served, "__name__", "")), idempotent=idempotent)
            if method.name in self.methods:
                raise NotServableError(
                    f"{self.name} has a method {method.name!r} already", "Give one of them another name=…."
                )
            self.methods[method.name] = method
            return served

        return add if function is None else add(function)

    def __repr__(self) -> str:
        return f"<Service {self.name}: {', '.join(self.methods) or 'no methods'}>"
