"""A look at a queue that changes nothing in it."""

from collections.abc import Iterator
from math import inf
from pathlib import Path

from cxrsr_cli.common.sqlite_file import SqliteFile
from cxrsr_cli.serve.queue import ITEM, SCHEMA, DeliveryState, ItemState, QueueItem, item_from_row

_PAGE = 1000
"""Rows that are read at a time."""


class QueueView:
    """What stands where, for people and for metrics.

    It has a connection of its own, so that nobody who works waits for who looks.

    Parameters
    ----------
    path : Path
        The ledger's file.
    """

    def __init__(self, path: Path) -> None:
        # Not read-only: what a process left when it was killed must be rolled back first.
        self._file = SqliteFile(path, SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def items(self, *states: ItemState) -> Iterator[QueueItem]:
        """List instances in given states, in all if none is given, the oldest first."""
        wanted = states or tuple(ItemState)
        marks = ", ".join("?" * len(wanted))
        last: tuple[float, str] = (-inf, "")
        while True:
            with self._file.connection() as connection:
                rows = connection.execute(
                    f"SELECT {ITEM} FROM items WHERE state IN ({marks})"  # noqa: S608
                    " AND (arrived, key) > (?, ?) ORDER BY arrived, key LIMIT ?",
                    (*wanted, *last, _PAGE),
                ).fetchall()
            found = [item_from_row(row) for row in rows]
            yield from found
            if len(found) < _PAGE:
                return
            last = (found[-1].arrived, found[-1].key)

    def counts(self) -> dict[ItemState, int]:
        """Return how many instances stand where."""
        with self._file.connection() as connection:
            found = dict(
                connection.execute("SELECT state, COUNT(*) FROM items GROUP BY state").fetchall()
            )
        return {state: found.get(state, 0) for state in ItemState}

    def pending(self) -> dict[str, int]:
        """Return how many outputs wait for each destination."""
        with self._file.connection() as connection:
            return dict(
                connection.execute(
                    "SELECT destination, COUNT(*) FROM deliveries WHERE state = ?"
                    " GROUP BY destination",
                    (DeliveryState.PENDING,),
                ).fetchall()
            )
