"""What a node says of itself: sentences for people, JSON for machines."""

import json
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cxrsr_cli.commands.saying import print_line
from cxrsr_cli.errors import InternalError

if TYPE_CHECKING:
    from cxrsr_cli.serve.events import Event

_LEVELS = {"refused": "warning", "postponed": "warning", "dead": "error", "trouble": "error"}


class EventReporter:
    """Writes a line on stderr for each event, from whichever thread.

    Parameters
    ----------
    as_json : bool
        An object a line.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._lock = threading.Lock()

    def report(self, event: "Event") -> None:
        """Write an event's line."""
        line = _json_line(event) if self._as_json else _sentence(event)
        with self._lock:
            print_line(line, err=True)


def unexpected_event(error: BaseException | None) -> "Event":
    """Return the event of a failure that nobody caught, without its text."""
    from cxrsr_cli.serve.events import Event, EventKind

    reason = str(InternalError.of(error)) if isinstance(error, Exception) else "a thread ended"
    return Event(kind=EventKind.ERROR, reason=reason)


def _facts(event: "Event") -> dict[str, str | float]:
    facts = {
        "instance": event.key,
        "peer": event.peer,
        "destination": event.destination,
        "rule": event.rule,
        "reason": event.reason,
    }
    given: dict[str, str | float] = {name: value for name, value in facts.items() if value}
    if event.seconds is not None:
        given["seconds"] = round(event.seconds, 3)
    return given


def _json_line(event: "Event") -> str:
    return json.dumps(
        {
            "time": _now(),
            "level": _LEVELS.get(event.kind, "info"),
            "event": event.kind.value,
            **_facts(event),
        }
    )


def _sentence(event: "Event") -> str:
    parts = [f"{_now()} {event.kind.value}"]
    if event.key:
        parts.append(event.key)
    if event.peer:
        parts.append(f"from {event.peer}")
    if event.destination:
        parts.append(f"to {event.destination}")
    if event.rule:
        parts.append(f"by '{event.rule}'")
    if event.seconds is not None:
        parts.append(f"in {event.seconds:.1f} s")
    return " ".join(parts) + (f": {event.reason}" if event.reason else "")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
