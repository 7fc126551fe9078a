"""The queue of a node, on the disk: acknowledged instances and their pending work.

It shares the ledger's file. Changes are committed and flushed when a method
returns, or when a `transaction` ends, so that neither `kill -9` nor a power cut
loses an instance. It holds keys, states, AE titles and addresses of peers, and
messages of cxrsr, but nothing from inside an object.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from pathlib import Path
from sqlite3 import Connection

from cxrsr_cli.common.sqlite_file import Schema, SqliteFile


class ItemState(StrEnum):
    """State of an instance."""

    RECEIVED = "received"
    """Acknowledged, to be upscaled."""
    SENDING = "sending"
    """Upscaled, not at every destination yet."""
    DONE = "done"
    """At every destination. Files are deleted."""
    IGNORED = "ignored"
    """Dropped by a rule, no rule matched, or own output. Files are deleted."""
    DEAD = "dead"
    """Failed; retried only on request. Files and reason are kept."""


FINAL = (ItemState.DONE, ItemState.IGNORED)
"""States without files."""


class DeliveryState(StrEnum):
    """State of the delivery to one destination."""

    PENDING = "pending"
    SENT = "sent"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueItem:
    """An instance in the queue.

    Attributes
    ----------
    key : str
        Hash of the instance, 32 hexadecimal digits; the name of its files.
    state : ItemState
        Its state.
    calling_ae, called_ae, address : str
        AE titles of the association and IP address of the sender.
    crash_count : int
        How often the process ended while it was being upscaled.
    attempts : int
        How often upscaling failed with an error that may be temporary.
    due : float
        Time of the next attempt, in seconds since 1970.
    rule : str
        Name of the rule that was applied; empty before.
    reason : str
        Reason of the state.
    arrived : float
        Time of reception, in seconds since 1970.
    """

    key: str
    state: ItemState
    calling_ae: str
    called_ae: str
    address: str
    crash_count: int
    attempts: int
    due: float
    rule: str
    reason: str
    arrived: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The delivery of an output to one destination.

    Attributes
    ----------
    key : str
        Key of the instance.
    destination : str
        Name of the destination in the configuration.
    attempts : int
        Number of failed attempts.
    """

    key: str
    destination: str
    attempts: int


_SCHEMA = Schema(
    "queue",
    (
        (
            """
            CREATE TABLE IF NOT EXISTS arrivals (
                key TEXT PRIMARY KEY, state TEXT NOT NULL, calling_ae TEXT NOT NULL,
                called_ae TEXT NOT NULL, address TEXT NOT NULL, begun INTEGER NOT NULL,
                attempts INTEGER NOT NULL, due REAL NOT NULL, rule TEXT NOT NULL,
                reason TEXT NOT NULL, arrived REAL NOT NULL, changed REAL NOT NULL
            ) WITHOUT ROWID
            """,
            "CREATE INDEX IF NOT EXISTS arrivals_by_state ON arrivals (state, arrived)",
            """
            CREATE TABLE IF NOT EXISTS deliveries (
                key TEXT NOT NULL, destination TEXT NOT NULL, state TEXT NOT NULL,
                attempts INTEGER NOT NULL, due REAL NOT NULL, reason TEXT NOT NULL,
                PRIMARY KEY (key, destination)
            ) WITHOUT ROWID
            """,
            """
            CREATE INDEX IF NOT EXISTS deliveries_by_destination
            ON deliveries (destination, state, due)
            """,
        ),
        (
            "ALTER TABLE arrivals RENAME TO items",
            "ALTER TABLE items RENAME COLUMN begun TO crash_count",
            "UPDATE deliveries SET state = 'pending' WHERE state = 'waiting'",
        ),
    ),
)
_COLUMNS = ", ".join(QueueItem.__slots__)
"""Columns of a `QueueItem`."""
_PAGE = 1000
"""Rows read at once."""


def _item_from_row(row: Sequence[object]) -> QueueItem:
    """Return the instance of a row with the columns `_COLUMNS`."""
    values = dict(zip(QueueItem.__slots__, row, strict=True))
    return QueueItem(**{**values, "state": ItemState(str(values["state"]))})  # type: ignore[arg-type]


class Queue:
    """Instances and deliveries with their states.

    Parameters
    ----------
    path : Path
        The ledger's file.
    clock : callable
        Returns seconds since 1970.
    max_delay : float
        Longest delay of a retry, in seconds. A later due time was written while the
        clock was wrong, and counts as now.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.time,
        *,
        max_delay: float = 3600.0,
    ) -> None:
        self._file = SqliteFile(path, _SCHEMA)
        self._clock = clock
        self._max_delay = max_delay

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def check(self) -> None:
        """Open the file, and create or upgrade its tables.

        Raises
        ------
        OutputError
            If the file cannot be used.
        """
        with self._file.connection():
            pass

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Lock the queue for other threads and processes while the block changes files.

        The changes are committed together at the end, or rolled back if the block raises.
        """
        with self._transaction():
            yield

    def state_of(self, key: str) -> ItemState | None:
        """Return the state of an instance; None if it is unknown."""
        with self._file.connection() as connection:
            row = connection.execute("SELECT state FROM items WHERE key = ?", (key,)).fetchone()
        return ItemState(row[0]) if row else None

    def has_deliveries(self, key: str) -> bool:
        """Tell whether deliveries of an instance were queued."""
        with self._file.connection() as connection:
            (count,) = connection.execute(
                "SELECT COUNT(*) FROM deliveries WHERE key = ?", (key,)
            ).fetchone()
        return bool(count)

    def enqueue(
        self, key: str, calling_ae: str = "", called_ae: str = "", address: str = ""
    ) -> None:
        """Add an instance, or reset one that was dead or ignored and was received again."""
        now = self._clock()
        with self._transaction() as connection:
            connection.execute("DELETE FROM deliveries WHERE key = ?", (key,))
            connection.execute(
                f"INSERT OR REPLACE INTO items ({_COLUMNS}, changed)"  # noqa: S608
                " VALUES (?, ?, ?, ?, ?, 0, 0, 0, '', '', ?, ?)",
                (key, ItemState.RECEIVED, calling_ae, called_ae, address, now, now),
            )

    def due_items(self, limit: int) -> list[QueueItem]:
        """Return instances to upscale now, oldest first, and last those that were crashed on."""
        now = self._clock()
        with self._file.connection() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM items WHERE state = ?"  # noqa: S608
                " AND (due <= ? OR due > ?) ORDER BY crash_count > 0, arrived, key LIMIT ?",
                (ItemState.RECEIVED, now, now + self._max_delay, limit),
            ).fetchall()
        return [_item_from_row(row) for row in rows]

    def mark_started(self, keys: Sequence[str]) -> None:
        """Increase the crash count of instances; their result sets it to zero."""
        self._count(keys, 1)

    def unmark_started(self, keys: Sequence[str]) -> None:
        """Undo `mark_started` for instances that were not processed."""
        self._count(keys, -1)

    def retry_later(self, key: str, delay: float, reason: str) -> None:
        """Try an instance again after some seconds."""
        self._end(key, ItemState.RECEIVED, reason, due=self._clock() + delay, failures=1)

    def ignore(self, key: str, rule: str, reason: str) -> None:
        """Mark an instance as ignored."""
        self._end(key, ItemState.IGNORED, reason, rule=rule)

    def mark_dead(self, key: str, reason: str) -> None:
        """Mark an instance as dead."""
        self._end(key, ItemState.DEAD, reason)

    def add_deliveries(self, key: str, rule: str, destinations: Sequence[str]) -> None:
        """Queue the deliveries of an output."""
        with self._transaction() as connection:
            self._end(key, ItemState.SENDING, "", rule=rule)
            connection.executemany(
                "INSERT OR IGNORE INTO deliveries VALUES (?, ?, ?, 0, 0, '')",
                [(key, name, DeliveryState.PENDING) for name in destinations],
            )

    def due_deliveries(self, destination: str, limit: int) -> list[Delivery]:
        """Return the deliveries to a destination that are due, longest due first."""
        now = self._clock()
        with self._file.connection() as connection:
            rows = connection.execute(
                "SELECT key, attempts FROM deliveries WHERE destination = ? AND state = ?"
                " AND (due <= ? OR due > ?) ORDER BY due, key LIMIT ?",
                (destination, DeliveryState.PENDING, now, now + self._max_delay, limit),
            ).fetchall()
        return [
            Delivery(key=key, destination=destination, attempts=attempts) for key, attempts in rows
        ]

    def mark_sent(self, delivery: Delivery) -> ItemState:
        """Record a successful delivery; return the state of the instance."""
        return self._settle(delivery, DeliveryState.SENT, "", 0.0)

    def mark_failed(self, delivery: Delivery, reason: str, delay: float | None) -> ItemState:
        """Record a failed delivery; retry after `delay` seconds, or give up if it is None."""
        if delay is None:
            return self._settle(delivery, DeliveryState.DEAD, reason, 0.0)
        return self._settle(delivery, DeliveryState.PENDING, reason, self._clock() + delay)

    def requeue(self, key: str) -> None:
        """Retry a dead instance now, at the step that failed."""
        now = self._clock()
        with self._transaction() as connection:
            if self.state_of(key) is not ItemState.DEAD:
                return
            sent = connection.execute(
                "UPDATE deliveries SET state = ?, attempts = 0, due = 0, reason = ''"
                " WHERE key = ? AND state = ?",
                (DeliveryState.PENDING, key, DeliveryState.DEAD),
            ).rowcount
            connection.execute(
                "UPDATE items SET state = ?, crash_count = 0, attempts = 0, due = 0, reason = '',"
                " changed = ? WHERE key = ?",
                (ItemState.SENDING if sent else ItemState.RECEIVED, now, key),
            )

    def make_due_now(self) -> int:
        """Make all waiting retries due now; return their number."""
        with self._transaction() as connection:
            tables = {"items": ItemState.RECEIVED, "deliveries": DeliveryState.PENDING}
            return sum(
                connection.execute(
                    f"UPDATE {table} SET due = 0 WHERE state = ? AND due > ?",  # noqa: S608
                    (state, self._clock()),
                ).rowcount
                for table, state in tables.items()
            )

    def discard(self, key: str, reason: str) -> None:
        """Mark a dead instance as ignored."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE items SET state = ?, reason = ?, changed = ? WHERE key = ? AND state = ?",
                (ItemState.IGNORED, reason, self._clock(), key, ItemState.DEAD),
            )

    def delete_finished_before(self, moment: float) -> list[str]:
        """Delete instances that were finished before a time; return their keys."""
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT key FROM items WHERE state IN (?, ?) AND changed < ?", (*FINAL, moment)
            ).fetchall()
            for table in ("deliveries", "items"):
                connection.executemany(f"DELETE FROM {table} WHERE key = ?", rows)  # noqa: S608
        return [key for (key,) in rows]

    def _count(self, keys: Sequence[str], step: int) -> None:
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE items SET crash_count = MAX(crash_count + ?, 0)"
                " WHERE key = ? AND state = ?",
                [(step, key, ItemState.RECEIVED) for key in keys],
            )

    def _end(
        self,
        key: str,
        state: ItemState,
        reason: str,
        *,
        rule: str | None = None,
        due: float = 0.0,
        failures: int = 0,
    ) -> None:
        """Record the result of upscaling an instance."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE items SET state = ?, reason = ?, rule = COALESCE(?, rule), due = ?,"
                " crash_count = 0, attempts = attempts + ?, changed = ?"
                " WHERE key = ? AND state = ?",
                (state, reason, rule, due, failures, self._clock(), key, ItemState.RECEIVED),
            )

    def _settle(
        self, delivery: Delivery, state: DeliveryState, reason: str, due: float
    ) -> ItemState:
        with self._transaction() as connection:
            connection.execute(
                "UPDATE deliveries SET state = ?, attempts = ?, due = ?, reason = ?"
                " WHERE key = ? AND destination = ?",
                (state, delivery.attempts + 1, due, reason, delivery.key, delivery.destination),
            )
            rows = connection.execute(
                "SELECT state, destination, reason FROM deliveries WHERE key = ?", (delivery.key,)
            ).fetchall()
            states = {row[0] for row in rows}
            if DeliveryState.PENDING in states:
                return ItemState.SENDING
            ended = ItemState.DEAD if DeliveryState.DEAD in states else ItemState.DONE
            why = "; ".join(f"{row[1]}: {row[2]}" for row in rows if row[0] == DeliveryState.DEAD)
            connection.execute(
                "UPDATE items SET state = ?, reason = ?, changed = ? WHERE key = ?",
                (ended, why, self._clock(), delivery.key),
            )
            return ended

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Commit the changes of the block, or roll them back if it raises."""
        with self._file.connection() as connection:
            if connection.in_transaction:  # of `transaction`, in this thread
                yield connection
                return
            # Locks at once, so that nothing changes between reading and writing.
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                yield connection


class QueueView:
    """A read-only view of the queue.

    It has its own connection, so that readers do not delay the workers.
    """

    def __init__(self, path: Path) -> None:
        # Opened for writing, because the transaction of a killed process must be rolled back.
        self._file = SqliteFile(path, _SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def items(self, *states: ItemState) -> Iterator[QueueItem]:
        """Yield instances in the given states, or in all, oldest first."""
        wanted = states or tuple(ItemState)
        marks = ", ".join("?" * len(wanted))
        last: tuple[float, str] = (-inf, "")
        while True:
            with self._file.connection() as connection:
                rows = connection.execute(
                    f"SELECT {_COLUMNS} FROM items WHERE state IN ({marks})"  # noqa: S608
                    " AND (arrived, key) > (?, ?) ORDER BY arrived, key LIMIT ?",
                    (*wanted, *last, _PAGE),
                ).fetchall()
            found = [_item_from_row(row) for row in rows]
            yield from found
            if len(found) < _PAGE:
                return
            last = (found[-1].arrived, found[-1].key)

    def counts(self) -> dict[ItemState, int]:
        """Return the number of instances by state."""
        with self._file.connection() as connection:
            found = dict(
                connection.execute("SELECT state, COUNT(*) FROM items GROUP BY state").fetchall()
            )
        return {state: found.get(state, 0) for state in ItemState}

    def pending(self) -> dict[str, int]:
        """Return the number of pending deliveries by destination."""
        with self._file.connection() as connection:
            return dict(
                connection.execute(
                    "SELECT destination, COUNT(*) FROM deliveries WHERE state = ?"
                    " GROUP BY destination",
                    (DeliveryState.PENDING,),
                ).fetchall()
            )
