"""The queue's tables, and how a row of them is read."""

from collections.abc import Sequence

from cxrsr_cli.serve.state import ItemState, QueueItem

SCHEMA = """
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
CREATE INDEX IF NOT EXISTS arrivals_by_state ON arrivals (state, arrived);
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
ITEM = "key, state, calling_ae, called_ae, address, begun, attempts, due, rule, reason, arrived"
"""Columns that make an `QueueItem`."""


def item_from_row(row: Sequence[object]) -> QueueItem:
    """Return the instance that a row of the columns `ITEM` is of."""
    values = dict(zip(ITEM.split(", "), row, strict=True))
    return QueueItem(**{**values, "state": ItemState(str(values["state"]))})  # type: ignore[arg-type]
