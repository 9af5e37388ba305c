"""Every error that datacenter raises. One class an outcome, each with a stable code that also travels on the wire.

An error says what happened, to what, and what to do next (`hint`). `DatacenterError.__str__` shows both.
All of them can be pickled and raised from any thread.
"""

from __future__ import annotations


class DatacenterError(Exception):
    """Base of all errors of datacenter.

    `code` is stable and machine-readable; `hint` says what to do or type next ("" where nothing helps).
    """

    code = "error"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


# --- the process's own state


class ClosedError(DatacenterError):
    """The object was closed; make a new one."""

    code = "closed"


class ForkedError(DatacenterError):
    """The object was made by a parent process; make a new one in this process."""

    code = "forked"


class WrongLoopError(DatacenterError):
    """An async object was used outside the event loop that it was made in."""

    code = "wrong-loop"


class WrongThreadError(DatacenterError):
    """A socket was used by another thread than the one that it belongs to: libzmq would abort sooner or later."""

    code = "wrong-thread"


class AddressError(DatacenterError):
    """The address is not one that ZeroMQ can use here (spelling, host, port)."""

    code = "bad-address"


class AddressInUseError(DatacenterError):
    """Another socket listens at this address."""

    code = "address-in-use"


class InsecureAddressError(DatacenterError):
    """The address is reachable from other machines and nothing protects it."""

    code = "insecure-address"


class DescriptorLimitError(DatacenterError):
    """The process has no descriptor left (RLIMIT_NOFILE)."""

    code = "descriptor-limit"


class SocketLimitError(DatacenterError):
    """The ZeroMQ context has no socket left (max_sockets); descriptors may still be free."""

    code = "socket-limit"


class NoSuchProcessError(DatacenterError):
    """No process has this number (any more)."""

    code = "no-such-process"


class NotPermittedError(DatacenterError):
    """The kernel does not let this user look at that process."""

    code = "not-permitted"


class NoLedgerError(DatacenterError):
    """The process keeps no ledger: it is not a datacenter process."""

    code = "no-ledger"


class BadOptionError(DatacenterError):
    """An option has a value that cannot work, alone or beside another."""

    code = "bad-option"


class NotServableError(DatacenterError):
    """A function or a name cannot be served as it is declared."""

    code = "not-servable"


# --- the broker


class BrokerUnreachableError(DatacenterError):
    """No broker answered in time at the address given."""

    code = "broker-unreachable"


class RegistryUnreachableError(DatacenterError):
    """No ZooKeeper server answered."""

    code = "registry-unreachable"


class ProtocolError(DatacenterError):
    """A peer sent what is not a message of this protocol, or speaks another version of it."""

    code = "protocol"


class NoSuchServiceError(DatacenterError):
    """The name was never registered at this broker."""

    code = "no-such-service"


def no_such_service(name: str, broker: str) -> NoSuchServiceError:
    """Nobody ever registered this name at the broker with this address."""
    return NoSuchServiceError(
        f"no service named {name!r} was ever registered at {broker}",
        f"See what there is: `datacenter ls`; start it: `datacenter serve MODULE:{name}`.",
    )


class WrongTypeError(DatacenterError):
    """The name is registered with another type than the one asked for."""

    code = "wrong-type"


def wrong_type(name: str, registered: str, wanted: str) -> WrongTypeError:
    """The same words wherever it is noticed."""
    return WrongTypeError(
        f"{name!r} is registered as {registered}, not as {wanted}",
        f"Use it as {registered}, or another name: `datacenter ls` shows all.",
    )


class NoRelayError(DatacenterError):
    """The broker cannot make a relay of the service now; the message says why. Nothing was sent."""

    code = "no-relay"


class RegistryFullError(DatacenterError):
    """The broker's registry has reached a stated limit."""

    code = "registry-full"


# --- calls


class CallError(DatacenterError):
    """Base of the ways in which a call can end without a result."""

    code = "call"


class NoSuchMethodError(CallError):
    """The service has no such method. The call was not executed."""

    code = "no-such-method"


class MovedError(CallError):
    """The instance serves the method no more; the call was not executed. Clients send it to another instance."""

    code = "moved"


class BadArgumentsError(CallError):
    """The arguments do not fit the method's signature. The call was not executed."""

    code = "bad-arguments"


class TooLargeError(CallError):
    """A call or its result is larger than the other side accepts, and was not sent; the message says which."""

    code = "too-large"


class BusyError(CallError):
    """The service, or this client, has as many calls in flight as it takes. The call was not executed."""

    code = "busy"


class DeadlineError(CallError):
    """The deadline passed. `sent` says whether the call had been sent: if so, it may have been executed."""

    code = "deadline"

    def __init__(self, message: str, hint: str = "", sent: bool = False) -> None:
        super().__init__(message, hint)
        self.args = (message, hint, sent)
        self.sent = sent


class LostError(CallError):
    """The connection ended after the call was sent and before its result came: it may have been executed."""

    code = "lost"


class RemoteError(CallError):
    """The method raised. `kind` is the exception's class name at the service; `message` its text."""

    code = "remote"

    def __init__(self, message: str, hint: str = "", kind: str = "Exception") -> None:
        super().__init__(message, hint)
        self.args = (message, hint, kind)
        self.kind = kind


class BadResultError(CallError):
    """The method's result could not be encoded, or is not of the type asked for. The call was executed."""

    code = "bad-result"


def _catalogue() -> dict[str, type[DatacenterError]]:
    found: dict[str, type[DatacenterError]] = {}
    waiting: list[type[DatacenterError]] = [DatacenterError]
    while waiting:
        kind = waiting.pop()
        found[kind.code] = kind
        waiting.extend(kind.__subclasses__())
    return found


#: code -> class, for errors that arrive over the wire
CATALOGUE = _catalogue()
