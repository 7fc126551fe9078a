"""``cxrsr queue``: inspect and repair a node's queue."""

import json
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrsr_cli.batch.ledger import Ledger
from cxrsr_cli.commands.console import print_line
from cxrsr_cli.errors import NoInputError, UsageError
from cxrsr_cli.serve.queue import ItemState, Queue, QueueItem, QueueView

if TYPE_CHECKING:
    from cxrsr_cli.serve.spool import Spool

app = typer.Typer(
    help="Inspect a node's queue and retry or remove failed instances. Works while the node "
    "is running.",
    no_args_is_help=True,
)

SpoolArgument = Annotated[Path, typer.Argument(metavar="SPOOL", help="Spool folder of the node.")]
KeysArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY]...", help="Keys of dead instances, or their first 6 or more digits."
    ),
]


@app.command("list")
def list_items(
    folder: SpoolArgument,
    state: Annotated[
        list[ItemState] | None,
        typer.Option("--state", help="List instances in this state; repeatable."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write JSON, one object per line.")
    ] = False,
) -> None:
    """List instances that are not finished, or those in the given states.

    Exit codes: 0 success, 2 not a spool, 6 the queue cannot be read.
    """
    _, view = _open(folder)
    states = state or [ItemState.RECEIVED, ItemState.SENDING, ItemState.DEAD]
    for item in view.items(*states):
        print_line(json.dumps(asdict(item)) if as_json else _line(item))
    if not as_json:
        counts = view.counts()
        print_line(", ".join(f"{number} {state.value}" for state, number in counts.items()))


@app.command()
def retry(
    folder: SpoolArgument,
    keys: KeysArgument = None,
    all_: Annotated[bool, typer.Option("--all", help="All dead instances.")] = False,
    pending: Annotated[
        bool,
        typer.Option("--pending", help="Also retry now what waits for its next attempt."),
    ] = False,
) -> None:
    """Retry dead instances from the step that failed.

    Exit codes: 0 success, 2 usage, 3 no dead instance matches, 6 cannot write.
    """
    from cxrsr_cli.serve.maintenance import retry_dead

    spool, view = _open(folder)
    queue = Queue(spool.ledger)
    if pending:
        print_line(f"{queue.make_due_now()} scheduled for immediate retry")
        if not (keys or all_):
            return
    print_line(f"{retry_dead(queue, spool, _dead_keys(view, keys, all_=all_))} queued again")


@app.command()
def purge(
    folder: SpoolArgument,
    keys: KeysArgument = None,
    all_: Annotated[bool, typer.Option("--all", help="All dead instances.")] = False,
    older_than: Annotated[
        float | None,
        typer.Option(
            "--older-than",
            min=0,
            metavar="DAYS",
            help="Delete the records of instances that were finished longer ago; if received "
            "again, they are processed as new.",
        ),
    ] = None,
) -> None:
    """Remove dead instances with their files, or the records of finished ones.

    Exit codes: 0 success, 2 usage, 3 no dead instance matches, 6 cannot write.
    """
    from cxrsr_cli.serve.maintenance import delete_history, purge_dead

    spool, view = _open(folder)
    queue = Queue(spool.ledger)
    if older_than is not None:
        deleted = delete_history(queue, Ledger(spool.ledger), spool, older_than)
        print_line(f"{deleted} records deleted")
        if not (keys or all_):
            return
    print_line(f"{purge_dead(queue, spool, _dead_keys(view, keys, all_=all_))} removed")


def _open(folder: Path) -> "tuple[Spool, QueueView]":
    from cxrsr_cli.serve.spool import Spool

    spool = Spool(folder)
    view = QueueView(spool.ledger)
    if not spool.exists:
        raise UsageError(f"{folder} is not a spool of cxrsr serve")
    return spool, view


def _dead_keys(view: QueueView, keys: list[str] | None, *, all_: bool) -> list[str]:
    from cxrsr_cli.serve.maintenance import find_dead

    if bool(keys) == all_:
        raise UsageError("give either keys or --all")
    for key in keys or []:
        # An unset shell variable gives an empty key, which would match all.
        if not re.fullmatch(r"[0-9a-f]{6,32}", key):
            raise UsageError("give at least 6 of the 32 hexadecimal digits of a key")
    dead = find_dead(view, keys or [])
    if not dead:
        raise NoInputError("no dead instance matches")
    return dead


def _line(item: QueueItem) -> str:
    arrived = datetime.fromtimestamp(item.arrived, UTC).isoformat(timespec="seconds")
    details = "".join(f"  {text}" for text in (item.rule, item.reason) if text)
    peer = f"{item.calling_ae} {item.address}".strip()
    return f"{item.key}  {item.state:<8}  {arrived}  {peer}{details}"
