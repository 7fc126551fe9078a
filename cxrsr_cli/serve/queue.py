"""The queue: what was acknowledged and what is still to be done, on the disk.

It lives in the ledger's file. What a method writes is committed and flushed
when it returns, or when the block of `held` ends, so that neither `kill -9` nor a
power cut loses an instance. It holds keys, states, titles and addresses of
peers, and our own sentences: nothing from inside an object.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from sqlite3 import Connection

from cxrsr_cli.common.sqlite_file import Schema, SqliteFile


class ItemState(StrEnum):
    """Of an instance."""

    RECEIVED = "received"
    """Acknowledged; to be upscaled."""
    SENDING = "sending"
    """Upscaled; not at every destination yet."""
    DONE = "done"
    """At every destination; its files are gone."""
    IGNORED = "ignored"
    """By a rule, for want of one, or because this program made it; its file is gone."""
    DEAD = "dead"
    """It will not be tried again unless asked to; its files are kept, and the reason."""


FINAL = (ItemState.DONE, ItemState.IGNORED)
"""States that need no files."""


class DeliveryState(StrEnum):
    """Of an instance on its way to one destination."""

    PENDING = "pending"
    SENT = "sent"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueItem:
    """An instance as the queue knows it.

    Attributes
    ----------
    key : str
        32 hexadecimal digits, made of the instance; its files are named by it.
    state : State
        Where it stands.
    calling_ae, called_ae, address : str
        Whom it came from, and under which title.
    begun : int
        How often its upscaling was begun and not seen to end: the process was killed.
    attempts : int
        How often its upscaling failed, and is to be tried again.
    due : float
        Seconds since 1970 before which it is left alone.
    rule : str
        Name of the rule that was followed, once there was one.
    reason : str
        Why it stands where it stands.
    arrived : float
        Seconds since 1970.
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
    """An output on its way to one destination.

    Attributes
    ----------
    key : str
        Of the instance.
    destination : str
        Its name in the configuration.
    attempts : int
        How often it was tried.
    """

    key: str
    destination: str
    attempts: int


SCHEMA = Schema(
    "queue",
    (
        (
            """
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
            ) WITHOUT ROWID
            """,
            "CREATE INDEX IF NOT EXISTS arrivals_by_state ON arrivals (state, arrived)",
            """
            CREATE TABLE IF NOT EXISTS deliveries (
                key TEXT NOT NULL,
                destination TEXT NOT NULL,
                state TEXT NOT NULL,
                attempts INTEGER NOT NULL,
                due REAL NOT NULL,
                reason TEXT NOT NULL,
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
ITEM = ", ".join(QueueItem.__slots__)
"""Columns of a `QueueItem`."""


def item_from_row(row: Sequence[object]) -> QueueItem:
    """Return the instance of a row with the columns `ITEM`."""
    values = dict(zip(QueueItem.__slots__, row, strict=True))
    return QueueItem(**{**values, "state": ItemState(str(values["state"]))})  # type: ignore[arg-type]


class Queue:
    """What is to be done for every instance that was acknowledged.

    Parameters
    ----------
    path : Path
        The ledger's file.
    clock : callable
        Gives seconds since 1970.
    longest : float
        Seconds that anything is left alone at most. What is due later was written
        when the clock was wrong, and is due now.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.time,
        *,
        longest: float = 3600.0,
    ) -> None:
        self._file = SqliteFile(path, SCHEMA)
        self._clock = clock
        self._longest = longest

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
        """Keep threads and processes from the queue while the block decides over files.

        All that it writes is committed when it ends, or nothing if it raises.
        """
        with self._changing():
            yield

    def state_of(self, key: str) -> ItemState | None:
        """Return where an instance stands; None if it never came."""
        with self._file.connection() as connection:
            row = connection.execute("SELECT state FROM items WHERE key = ?", (key,)).fetchone()
        return ItemState(row[0]) if row else None

    def has_deliveries(self, key: str) -> bool:
        """Tell whether an instance's output was, or is, on its way."""
        with self._file.connection() as connection:
            (count,) = connection.execute(
                "SELECT COUNT(*) FROM deliveries WHERE key = ?", (key,)
            ).fetchone()
        return bool(count)

    def enqueue(
        self, key: str, calling_ae: str = "", called_ae: str = "", address: str = ""
    ) -> None:
        """Take an instance, new or come again after it was given up or ignored."""
        now = self._clock()
        with self._changing() as connection:
            connection.execute("DELETE FROM deliveries WHERE key = ?", (key,))
            connection.execute(
                f"INSERT OR REPLACE INTO items ({ITEM}, changed)"  # noqa: S608
                " VALUES (?, ?, ?, ?, ?, 0, 0, 0, '', '', ?, ?)",
                (key, ItemState.RECEIVED, calling_ae, called_ae, address, now, now),
            )

    def due_items(self, limit: int) -> list[QueueItem]:
        """Return what is to be upscaled now, the oldest first."""
        now = self._clock()
        with self._file.connection() as connection:
            rows = connection.execute(
                f"SELECT {ITEM} FROM items WHERE state = ?"  # noqa: S608
                " AND (due <= ? OR due > ?) ORDER BY arrived, key LIMIT ?",
                (ItemState.RECEIVED, now, now + self._longest, limit),
            ).fetchall()
        return [item_from_row(row) for row in rows]

    def mark_started(self, keys: Sequence[str]) -> None:
        """Count that instances are in work; what comes of it sets the count to zero."""
        self._count(keys, 1)

    def unmark_started(self, keys: Sequence[str]) -> None:
        """Take back that instances were begun: they were not come to."""
        self._count(keys, -1)

    def retry_later(self, key: str, wait: float, reason: str) -> None:
        """Leave an instance alone for some seconds."""
        self._end(key, ItemState.RECEIVED, reason, due=self._clock() + wait, failures=1)

    def ignore(self, key: str, rule: str, reason: str) -> None:
        """Have no more to do with an instance."""
        self._end(key, ItemState.IGNORED, reason, rule=rule)

    def mark_dead(self, key: str, reason: str) -> None:
        """Give an instance up."""
        self._end(key, ItemState.DEAD, reason)

    def add_deliveries(self, key: str, rule: str, destinations: Sequence[str]) -> None:
        """Have an output sent."""
        with self._changing() as connection:
            self._end(key, ItemState.SENDING, "", rule=rule)
            connection.executemany(
                "INSERT OR IGNORE INTO deliveries VALUES (?, ?, ?, 0, 0, '')",
                [(key, name, DeliveryState.PENDING) for name in destinations],
            )

    def due_deliveries(self, destination: str, limit: int) -> list[Delivery]:
        """Return what a destination is to be sent now, the longest due first."""
        now = self._clock()
        with self._file.connection() as connection:
            rows = connection.execute(
                "SELECT key, attempts FROM deliveries WHERE destination = ? AND state = ?"
                " AND (due <= ? OR due > ?) ORDER BY due, key LIMIT ?",
                (destination, DeliveryState.PENDING, now, now + self._longest, limit),
            ).fetchall()
        return [
            Delivery(key=key, destination=destination, attempts=attempts) for key, attempts in rows
        ]

    def mark_sent(self, delivery: Delivery) -> ItemState:
        """Write down that a destination has an output; return where the instance stands."""
        return self._settle(delivery, DeliveryState.SENT, "", 0.0)

    def mark_failed(self, delivery: Delivery, reason: str, wait: float | None) -> ItemState:
        """Write down that it has not; without seconds to wait, give it up."""
        if wait is None:
            return self._settle(delivery, DeliveryState.DEAD, reason, 0.0)
        return self._settle(delivery, DeliveryState.PENDING, reason, self._clock() + wait)

    def requeue(self, key: str) -> None:
        """Have a dead instance tried again from where it died, now."""
        now = self._clock()
        with self._changing() as connection:
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
        """Make all that waits for another attempt due now; return how much it is."""
        with self._changing() as connection:
            tables = {"items": ItemState.RECEIVED, "deliveries": DeliveryState.PENDING}
            return sum(
                connection.execute(
                    f"UPDATE {table} SET due = 0 WHERE state = ? AND due > ?",  # noqa: S608
                    (state, self._clock()),
                ).rowcount
                for table, state in tables.items()
            )

    def discard(self, key: str, reason: str) -> None:
        """Have no more to do with a dead instance."""
        with self._changing() as connection:
            connection.execute(
                "UPDATE items SET state = ?, reason = ?, changed = ? WHERE key = ? AND state = ?",
                (ItemState.IGNORED, reason, self._clock(), key, ItemState.DEAD),
            )

    def delete_finished_before(self, moment: float) -> list[str]:
        """Know no more of what was done or ignored before a time; return their keys."""
        with self._changing() as connection:
            rows = connection.execute(
                "SELECT key FROM items WHERE state IN (?, ?) AND changed < ?", (*FINAL, moment)
            ).fetchall()
            for table in ("deliveries", "items"):
                connection.executemany(f"DELETE FROM {table} WHERE key = ?", rows)  # noqa: S608
        return [key for (key,) in rows]

    def _count(self, keys: Sequence[str], step: int) -> None:
        with self._changing() as connection:
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
        """Write down what came of the work on an instance."""
        with self._changing() as connection:
            connection.execute(
                "UPDATE items SET state = ?, reason = ?, rule = COALESCE(?, rule), due = ?,"
                " crash_count = 0, attempts = attempts + ?, changed = ?"
                " WHERE key = ? AND state = ?",
                (state, reason, rule, due, failures, self._clock(), key, ItemState.RECEIVED),
            )

    def _settle(
        self, delivery: Delivery, state: DeliveryState, reason: str, due: float
    ) -> ItemState:
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
    def _changing(self) -> Iterator[Connection]:
        """Commit what the block did, or nothing of it."""
        with self._file.connection() as connection:
            if connection.in_transaction:  # that of `held`, in this thread
                yield connection
                return
            # At once, so that what is read inside cannot change before it is written.
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                yield connection
