"""Every option of datacenter as data: its default, its unit, the incident behind it, and why it has this value.

An option is one call of `option()` where it is used as a default, so that the code and the page cannot say different
things:

    LEASE_S: Final = option("session", "lease_s", 3.0, "s", "K", "three lost heartbeats: …")

`docs/options.md` is made from this table (`python -m datacenter.options_page`), and a test compares the two. Pure: no
I/O. The letters of incidents are those of docs/from-the-incidents.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

_Value = TypeVar("_Value", bool, int, float, str, bytes)

#: group -> what its options are about; the page shows the groups in this order
GROUPS: Final = {
    "sockets": "each ZeroMQ socket: `SocketOptions`",
    "limits": "what the process may open",
    "monitor": "the monitor hub",
    "session": "a process's connection to the broker",
    "calls": "calls, and how they end: `ClientOptions`",
    "service": "a serving process: `ServiceOptions`",
    "prefork": "a family of processes, `serve --workers`: `PoolOptions`",
    "broker": "the broker: `BrokerOptions`",
    "zookeeper": "the registry that several brokers share in ZooKeeper (docs/zookeeper.md)",
    "relay": "the broker's proxy of one service: `RelayOptions`, `RelayManagerOptions`",
    "watchdog": "servers that know nothing of datacenter: `HealthOptions`, `WatchdogOptions`",
    "gateway": "`datacenter proxy`, a TCP gateway in front of them: `GatewayOptions`",
}


@dataclass(frozen=True)
class Option:
    """One option. `unit` is "" for a pure number; `incident` is "" where only good practice asks for it."""

    group: str
    name: str
    default: bool | int | float | str | bytes
    unit: str
    incident: str
    why: str


#: (group, name) -> the option, in the order of the sources
TABLE: Final[dict[tuple[str, str], Option]] = {}


def option(group: str, name: str, default: _Value, unit: str, incident: str, why: str) -> _Value:
    """Enter an option into the table and return its default.

    Raises ValueError for a group that is not in `GROUPS` and for a name that the group has already.
    """
    if group not in GROUPS:
        raise ValueError(f"no group {group!r} of options; there are {', '.join(GROUPS)}")
    if (group, name) in TABLE:
        raise ValueError(f"the option {group}.{name} exists already")
    TABLE[group, name] = Option(group, name, default, unit, incident, why)
    return default


HEARTBEAT_S: Final = option(
    "session", "heartbeat_s", 1.0, "s", "K",
    "Each side says something at least this often; any message counts. A peer that vanished without a FIN says "
    "nothing, and TCP alone would take two hours to notice.",
)  # fmt: skip
MISSED_HEARTBEATS: Final = option(
    "session", "missed_heartbeats", 3, "", "K",
    "So many silent heartbeats in a row mean that the peer is gone. One or two can be a long garbage collection or "
    "a busy core.",
)  # fmt: skip
LEASE_S: Final = option(
    "session", "lease_s", 3.0, "s", "K",
    "An instance leaves the registry when it has not renewed for this long: heartbeat_s × missed_heartbeats.",
)  # fmt: skip
BROKER_GRACE_LEASES: Final = option(
    "session", "broker_grace_leases", 2, "leases", "A",
    "After its start a broker knows nobody. For so many leases an unknown name is waited for, not refused: "
    "its instances are still on their way back.",
)  # fmt: skip
CONNECT_DEADLINE_S: Final = option(
    "session", "connect_deadline_s", 5.0, "s", "",
    "How long a new session waits for the broker's first answer before it says that there is no broker.",
)  # fmt: skip
CLOSE_DEADLINE_S: Final = option(
    "session", "close_deadline_s", 1.0, "s", "H",
    "close() of every object returns by then in every state, and names what was still open.",
)  # fmt: skip
DEADLINE_S: Final = option(
    "calls", "deadline_s", 10.0, "s", "B",
    "A call ends by then, with a result or a typed error; a lost reply wedges nothing.",
)  # fmt: skip
MAX_RESENDS: Final = option(
    "calls", "max_resends", 3, "", "B",
    "So often a call of an idempotent method is sent again after its connection ended. A call that kills its service "
    "must not do so for ever.",
)  # fmt: skip
MAX_IN_FLIGHT: Final = option(
    "calls", "max_in_flight", 10_000, "calls", "",
    "More unanswered calls than this at one client are refused with `busy`, unsent: a queue without a bound hides an "
    "outage until memory ends.",
)  # fmt: skip
RELAY_AFTER_S: Final = option(
    "calls", "relay_after_s", 1.0, "s", "",
    "On the route `auto`: a service whose instances were never reached for so long is called through the broker's "
    "relay. Once reached, twice the lease is added: an instance that died has left the registry by then.",
)  # fmt: skip
DEBUG_MONITOR: Final = option(
    "monitor", "debug_monitor", False, "", "A",
    "Also log each retry and accept failure, repeats folded. Off, because a dead peer makes three events an attempt.",
)  # fmt: skip
GOODBYE_LINGER_MS: Final = option(
    "session", "goodbye_linger_ms", 200, "ms", "H",
    "How long a closed control or service socket tries to deliver its last messages: goodbyes and last answers.",
)  # fmt: skip
NEXT_BROKER_S: Final = option(
    "session", "next_broker_s", 1.0, "s", "M",
    "Of several brokers the next one is tried when one took no connection for so long. A machine that is off or cut "
    "away refuses nothing: it is silent.",
)  # fmt: skip
RECONNECT_MIN_MS: Final = option(
    "session", "reconnect_min_ms", 100, "ms", "A",
    "The first pause before a session or a client's connection is tried again; each further one doubles, with jitter.",
)  # fmt: skip
RECONNECT_MAX_MS: Final = option(
    "session", "reconnect_max_ms", 1000, "ms", "A",
    "The longest pause between attempts: so much later than the peer's return the connection is back at the latest.",
)  # fmt: skip
INSECURE: Final = option(
    "session", "insecure", False, "", "",
    "Allows addresses beyond loopback although nothing protects what is said there. Off, so that nobody does it "
    "unasked.",
)  # fmt: skip
MAX_CONTROL_BYTES: Final = option(
    "broker", "max_control_bytes", 1024 * 1024, "bytes", "",
    "Larger control messages end the connection that sent them: none of ours comes near.",
)  # fmt: skip
MAX_SESSIONS: Final = option(
    "broker", "max_sessions", 10_000, "sessions", "L",
    "Processes that one broker takes. The next is refused with a reason.",
)  # fmt: skip
MAX_INSTANCES: Final = option(
    "broker", "max_instances", 100_000, "instances", "L", "Registered instances; the next registration is refused.",
)  # fmt: skip
MAX_KNOWN_NAMES: Final = option(
    "broker", "max_known_names", 10_000, "names", "",
    "Names remembered without an instance, so that callers wait for them. Beyond it the longest unused are forgotten.",
)  # fmt: skip
MAX_WATCHES: Final = option(
    "broker", "max_watches", 10_000, "names", "", "Names that one session may watch.",
)  # fmt: skip
ZOOKEEPER_SESSION_S: Final = option(
    "zookeeper", "session_s", 6.0, "s", "M",
    "ZooKeeper keeps a broker's registrations for so long without hearing of the broker. Three ticks of a server as it "
    "comes (2 s); shorter, and a new leader's election ends sessions; longer, and what a dead broker registered stays.",
)  # fmt: skip
ZOOKEEPER_MARGIN: Final = option(
    "zookeeper", "margin", 0.25, "of the session", "M",
    "A broker believes what it knows for a session less this after it was last confirmed by the leader: a follower "
    "tells the leader of a session half a tick late, and a session has two ticks at least.",
)  # fmt: skip
CONTROL_HIGH_WATER: Final = option(
    "broker", "control_high_water", 20_000, "messages", "L",
    "Messages queued for one session. Room for the answers to one that registers or watches as many names as it may, "
    "at once; one that does not read is forgotten at the first message beyond it, and by its missed heartbeats.",
)  # fmt: skip
MAX_RUNNING: Final = option(
    "service", "max_in_flight", 10_000, "calls", "L",
    "Calls that run or wait at one serving process; the next is refused unexecuted (`busy`).",
)  # fmt: skip
MAX_OUTBOX: Final = option(
    "service", "max_outbox", 200_000, "replies", "",
    "Replies that wait for clients which do not read. Beyond it they are dropped, counted and logged, and those calls "
    "end by their deadline.",
)  # fmt: skip
MAX_OUTBOX_PER_CLIENT: Final = option(
    "service", "max_outbox_per_client", 70_000, "replies", "",
    "Those of them that may belong to one client, so that one that does not read cannot take the room of the others. "
    "More than a client, or a relay with all its clients, may have in flight: one that reads loses none.",
)  # fmt: skip
BUSY_OUTBOX_BYTES: Final = option(
    "service", "busy_outbox_bytes", 256 * 1024 * 1024, "bytes", "",
    "While more than this waits for one client, its calls are refused unexecuted (`busy`): results that nobody fetches "
    "are not made.",
)  # fmt: skip
RECEIVE_ALL: Final = option(
    "calls", "receive_high_water", 0, "messages", "H",
    "Of a socket that connects (client, session, relay to instance): no bound of its own, the calls in flight are one. "
    "With a bound, a loop that is blocked while replies come stops the connection from being read, heartbeats "
    "included; libzmq then ends it, connects again, and aborts (libzmq #3937).",
)  # fmt: skip
THREADS: Final = option(
    "service", "threads", 16, "threads", "", "Methods that are not async run in so many threads.",
)  # fmt: skip
DRAIN_S: Final = option(
    "service", "drain_s", 0.5, "s", "H",
    "How long calls that run may take to finish when the service ends, and clients to hear of it; what runs longer is "
    "answered with `lost`. Short, so that a service ends within a second unless asked for more patience "
    "(`serve --drain-s 30`).",
)  # fmt: skip
MAX_WORKERS: Final = option(
    "prefork", "max_workers", 256, "processes", "M",
    "The most that `serve --workers` takes: a process each; more than the machine has processors rarely help.",
)  # fmt: skip
RESTART_MIN_S: Final = option(
    "prefork", "restart_min_s", 0.1, "s", "M",
    "The first pause before a process that ended too early is started again; each further one doubles, with jitter. "
    "One that had worked for `stable_s` is replaced at once.",
)  # fmt: skip
RESTART_MAX_S: Final = option(
    "prefork", "restart_max_s", 5.0, "s", "M",
    "The longest such pause: so much later than its cause is mended a worker that crashes at its start is back.",
)  # fmt: skip
STABLE_S: Final = option(
    "prefork", "stable_s", 1.0, "s", "M",
    "A process that has worked for so long did not end because it cannot start.",
)  # fmt: skip
START_DEADLINE_S: Final = option(
    "prefork", "start_deadline_s", 30.0, "s", "M",
    "A process that does not work so long after its start is killed, and another one is tried.",
)  # fmt: skip
END_MARGIN_S: Final = option(
    "prefork", "end_margin_s", 3.0, "s", "M",
    "A process that was asked to end is killed so long after its patience (`drain_s`): a method that never returns "
    "must not keep the others from ending.",
)  # fmt: skip
ALIVE_S: Final = option(
    "prefork", "alive_s", 1.0, "s", "K",
    "So often a worker tells its supervisor that it lives, and what it has counted (what it counted since then is lost "
    "if it is killed). Three silent ones, and its instances leave the registry until it is heard again.",
)  # fmt: skip
STUCK_S: Final = option(
    "prefork", "stuck_s", 60.0, "s", "K",
    "A worker that was silent for so long (stopped, or the interpreter stuck in C code) is killed and replaced.",
)  # fmt: skip
WATCHER_SILENT_S: Final = option(
    "prefork", "watcher_silent_s", 2.0, "s", "K",
    "A watcher that was silent for so long is killed and replaced. Less than a lease, so that no instance leaves the "
    "registry meanwhile.",
)  # fmt: skip
