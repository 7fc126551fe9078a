"""The queue: what was acknowledged and what is still to be done, on the disk.

It lives in the ledger's file. What a method writes is committed and flushed
when it returns, so that neither `kill -9` nor a power cut loses or doubles an
instance. It holds keys, states, titles and addresses of peers, and our own
sentences: nothing from inside an object.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection

from cxrsr_cli.batch.ledgerfile import LedgerFile
from cxrsr_cli.receive.arrival import Arrival
from cxrsr_cli.serve.state import FINAL, Delivery, DeliveryState, Item, State

_SCHEMA = """
CREATE TABLE IF NOT EXISTS arrivals (
    key TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    calling_ae TEXT NOT NULL,
    called_ae TEXT NOT NULL,
    address TEXT NOT NULL,
    begun INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    due REAL NOT NULL,
    rule TEXT NOT NULL,
    reason TEXT NOT NULL,
    arrived REAL NOT NULL,
    changed REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS arrivals_by_state ON arrivals (state, due);
CREATE TABLE IF NOT EXISTS deliveries (
    key TEXT NOT NULL,
    destination TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    due REAL NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (key, destination)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deliveries_by_destination ON deliveries (destination, state, due);
"""
_ITEM = "key, state, calling_ae, called_ae, address, begun, attempts, due, rule, reason, arrived"


class Queue:
    """What is to be done for every instance that was acknowledged.

    Parameters
    ----------
    path : Path
        The ledger's file.
    clock : callable
        Gives seconds since 1970.
    read_only : bool
        Never write to it.
    """

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.time, *, read_only: bool = False
    ) -> None:
        self._file = LedgerFile(path, _SCHEMA, read_only=read_only)
        self._clock = clock

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def state_of(self, key: str) -> State | None:
        """Return where an instance stands; None if it never came."""
        with self._file.use() as connection:
            row = connection.execute("SELECT state FROM arrivals WHERE key = ?", (key,)).fetchone()
        return State(row[0]) if row else None

    def admit(self, key: str, arrival: Arrival) -> None:
        """Take an instance, new or come again after it was given up or ignored."""
        now = self._clock()
        with self._changing() as connection:
            connection.execute("DELETE FROM deliveries WHERE key = ?", (key,))
            connection.execute(
                f"INSERT OR REPLACE INTO arrivals ({_ITEM}, changed)"  # noqa: S608
                " VALUES (?, ?, ?, ?, ?, 0, 0, ?, '', '', ?, ?)",
                (
                    key,
                    State.RECEIVED,
                    arrival.calling_ae,
                    arrival.called_ae,
                    arrival.address,
                    now,
                    now,
                    now,
                ),
            )

    def begin(self, limit: int) -> list[Item]:
        """Return what is to be upscaled now, the oldest first, each counted as begun.

        What comes of it sets the count to zero, unless the process ends before.
        """
        now = self._clock()
        with self._changing() as connection:
            rows = connection.execute(
                f"SELECT {_ITEM} FROM arrivals WHERE state = ? AND due <= ?"  # noqa: S608
                " ORDER BY arrived, key LIMIT ?",
                (State.RECEIVED, now, limit),
            ).fetchall()
            connection.executemany(
                "UPDATE arrivals SET begun = begun + 1 WHERE key = ?",
                [(row[0],) for row in rows],
            )
        return [_item(row) for row in rows]

    def give_back(self, keys: Sequence[str]) -> None:
        """Take back that something was begun: it was not come to."""
        with self._changing() as connection:
            connection.executemany(
                "UPDATE arrivals SET begun = begun - 1 WHERE key = ? AND state = ?",
                [(key, State.RECEIVED) for key in keys],
            )

    def postpone(self, key: str, due: float, reason: str) -> None:
        """Leave an instance that failed alone until then."""
        self._set(key, State.RECEIVED, reason, due=due, failures=1)

    def ignore(self, key: str, rule: str, reason: str) -> None:
        """Have no more to do with an instance."""
        self._set(key, State.IGNORED, reason, rule=rule)

    def bury(self, key: str, reason: str) -> None:
        """Give an instance up."""
        self._set(key, State.DEAD, reason)

    def dispatch(self, key: str, rule: str, destinations: Sequence[str]) -> None:
        """Have an output sent."""
        now = self._clock()
        with self._changing() as connection:
            connection.execute(
                "UPDATE arrivals SET state = ?, rule = ?, reason = '', begun = 0, attempts = 0,"
                " changed = ? WHERE key = ?",
                (State.SENDING, rule, now, key),
            )
            connection.executemany(
                "INSERT OR IGNORE INTO deliveries VALUES (?, ?, ?, 0, ?, '')",
                [(key, name, DeliveryState.WAITING, now) for name in destinations],
            )

    def due_at(self, destination: str, limit: int) -> list[Delivery]:
        """Return what a destination is to be sent now, the longest due first."""
        with self._file.use() as connection:
            rows = connection.execute(
                "SELECT key, attempts FROM deliveries"
                " WHERE destination = ? AND state = ? AND due <= ? ORDER BY due, key LIMIT ?",
                (destination, DeliveryState.WAITING, self._clock(), limit),
            ).fetchall()
        return [
            Delivery(key=key, destination=destination, attempts=attempts) for key, attempts in rows
        ]

    def delivered(self, delivery: Delivery) -> State:
        """Write down that a destination has an output; return where the instance stands."""
        return self._settle(delivery, DeliveryState.SENT, "", 0.0)

    def undelivered(self, delivery: Delivery, reason: str, due: float | None) -> State:
        """Write down that it has not; without a time for another attempt, give it up."""
        state = DeliveryState.DEAD if due is None else DeliveryState.WAITING
        return self._settle(delivery, state, reason, due or 0.0)

    def items(self, *states: State) -> list[Item]:
        """List instances in given states, in all if none is given, the oldest first."""
        wanted = states or tuple(State)
        marks = ", ".join("?" * len(wanted))
        with self._file.use() as connection:
            rows = connection.execute(
                f"SELECT {_ITEM} FROM arrivals WHERE state IN ({marks})"  # noqa: S608
                " ORDER BY arrived, key",
                wanted,
            ).fetchall()
        return [_item(row) for row in rows]

    def counts(self) -> dict[State, int]:
        """Return how many instances stand where."""
        with self._file.use() as connection:
            found = dict(
                connection.execute("SELECT state, COUNT(*) FROM arrivals GROUP BY state").fetchall()
            )
        return {state: found.get(state, 0) for state in State}

    def waiting(self) -> dict[str, int]:
        """Return how many outputs wait for each destination."""
        with self._file.use() as connection:
            return dict(
                connection.execute(
                    "SELECT destination, COUNT(*) FROM deliveries WHERE state = ?"
                    " GROUP BY destination",
                    (DeliveryState.WAITING,),
                ).fetchall()
            )

    def revive(self, key: str) -> None:
        """Have a dead instance tried again from where it died, now."""
        now = self._clock()
        with self._changing() as connection:
            sent = connection.execute(
                "UPDATE deliveries SET state = ?, attempts = 0, due = ?, reason = ''"
                " WHERE key = ? AND state = ?",
                (DeliveryState.WAITING, now, key, DeliveryState.DEAD),
            ).rowcount
            connection.execute(
                "UPDATE arrivals SET state = ?, begun = 0, attempts = 0, due = ?, reason = '',"
                " changed = ?"
                " WHERE key = ? AND state = ?",
                (State.SENDING if sent else State.RECEIVED, now, now, key, State.DEAD),
            )

    def forget(self, keys: Sequence[str]) -> None:
        """Know nothing of instances any more: they would be taken as new."""
        with self._changing() as connection:
            for table in ("deliveries", "arrivals"):
                connection.executemany(
                    f"DELETE FROM {table} WHERE key = ?",  # noqa: S608
                    [(key,) for key in keys],
                )

    def ended_before(self, moment: float) -> list[str]:
        """List the keys of those done or ignored before a time."""
        with self._file.use() as connection:
            rows = connection.execute(
                "SELECT key FROM arrivals WHERE state IN (?, ?) AND changed < ?", (*FINAL, moment)
            ).fetchall()
        return [key for (key,) in rows]

    def _set(
        self,
        key: str,
        state: State,
        reason: str,
        *,
        rule: str | None = None,
        due: float = 0.0,
        failures: int = 0,
    ) -> None:
        with self._changing() as connection:
            connection.execute(
                "UPDATE arrivals SET state = ?, reason = ?, rule = COALESCE(?, rule), due = ?,"
                " begun = 0, attempts = attempts + ?, changed = ? WHERE key = ?",
                (state, reason, rule, due, failures, self._clock(), key),
            )

    def _settle(self, delivery: Delivery, state: DeliveryState, reason: str, due: float) -> State:
        with self._changing() as connection:
            connection.execute(
                "UPDATE deliveries SET state = ?, attempts = ?, due = ?, reason = ?"
                " WHERE key = ? AND destination = ?",
                (state, delivery.attempts + 1, due, reason, delivery.key, delivery.destination),
            )
            rows = connection.execute(
                "SELECT state, destination, reason FROM deliveries WHERE key = ?", (delivery.key,)
            ).fetchall()
            states = {row[0] for row in rows}
            if DeliveryState.WAITING in states:
                return State.SENDING
            ended = State.DEAD if DeliveryState.DEAD in states else State.DONE
            why = "; ".join(f"{row[1]}: {row[2]}" for row in rows if row[0] == DeliveryState.DEAD)
            connection.execute(
                "UPDATE arrivals SET state = ?, reason = ?, changed = ? WHERE key = ?",
                (ended, why, self._clock(), delivery.key),
            )
            return ended

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        """Commit what the block did, or nothing of it."""
        with self._file.use() as connection, connection:
            yield connection


def _item(row: Sequence[object]) -> Item:
    names = _ITEM.split(", ")
    values = dict(zip(names, row, strict=True))
    return Item(**{**values, "state": State(str(values["state"]))})  # type: ignore[arg-type]
