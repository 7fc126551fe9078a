"""``cxrsr queue``: look into a node's queue, and lend it a hand."""

import json
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrsr_cli.commands.console import print_line
from cxrsr_cli.errors import NoInputError, UsageError
from cxrsr_cli.serve.queue import ItemState, QueueItem

if TYPE_CHECKING:
    from cxrsr_cli.serve.queue_view import QueueView
    from cxrsr_cli.serve.spool import Spool

app = typer.Typer(
    help="Look into the queue of a node, running or not, and lend it a hand.",
    no_args_is_help=True,
)

SpoolArgument = Annotated[Path, typer.Argument(metavar="SPOOL", help="The node's spool folder.")]
KeysArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY]...", help="Instances, by the beginning of their keys."),
]


@app.command("list")
def list_items(
    folder: SpoolArgument,
    state: Annotated[
        list[ItemState] | None, typer.Option("--state", help="Only these. Can be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="An object a line.")] = False,
) -> None:
    """List instances that are not done, or those in given states.

    Exit codes: 0, 2 no such spool, 6 the queue cannot be read.
    """
    _, survey = _open(folder)
    shown = state or [ItemState.RECEIVED, ItemState.SENDING, ItemState.DEAD]
    for item in survey.items(*shown):
        print_line(json.dumps(asdict(item)) if as_json else _line(item))
    if not as_json:
        counts = survey.counts()
        print_line(", ".join(f"{number} {state.value}" for state, number in counts.items()))


@app.command()
def retry(
    folder: SpoolArgument,
    keys: KeysArgument = None,
    all_: Annotated[bool, typer.Option("--all", help="All that are dead.")] = False,
    waiting: Annotated[
        bool,
        typer.Option("--waiting", help="And what waits for another attempt: now, not when due."),
    ] = False,
) -> None:
    """Try dead instances again, from where they died.

    Exit codes: 0, 2 usage, 3 no such instance is dead, 6 the queue cannot be written.
    """
    from cxrsr_cli.serve.maintenance import retry_dead
    from cxrsr_cli.serve.queue import Queue

    spool, survey = _open(folder)
    queue = Queue(spool.ledger)
    if waiting:
        print_line(f"{queue.make_due_now()} not waited for any longer")
        if not (keys or all_):
            return
    print_line(f"{retry_dead(queue, spool, _chosen(survey, keys, all_=all_))} to be tried again")


@app.command()
def purge(
    folder: SpoolArgument,
    keys: KeysArgument = None,
    all_: Annotated[bool, typer.Option("--all", help="All that are dead.")] = False,
    done_days: Annotated[
        float | None,
        typer.Option(
            "--done-days",
            min=0,
            metavar="DAYS",
            help="Forget what was done or ignored so long ago: if it comes again, it is new.",
        ),
    ] = None,
) -> None:
    """Remove dead instances with their files, or forget those that are done.

    Exit codes: 0, 2 usage, 3 no such instance is dead, 6 the queue cannot be written.
    """
    from cxrsr_cli.batch.ledger import Ledger
    from cxrsr_cli.serve.maintenance import delete_history, purge_dead
    from cxrsr_cli.serve.queue import Queue

    spool, survey = _open(folder)
    queue = Queue(spool.ledger)
    if done_days is not None:
        print_line(f"{delete_history(queue, Ledger(spool.ledger), spool, done_days)} forgotten")
        if not (keys or all_):
            return
    print_line(f"{purge_dead(queue, spool, _chosen(survey, keys, all_=all_))} removed")


def _open(folder: Path) -> "tuple[Spool, QueueView]":
    from cxrsr_cli.serve.queue_view import QueueView
    from cxrsr_cli.serve.spool import Spool

    spool = Spool(folder)
    survey = QueueView(spool.ledger)
    if not spool.exists:
        raise UsageError(f"{folder} is no spool of cxrsr serve")
    return spool, survey


def _chosen(survey: "QueueView", keys: list[str] | None, *, all_: bool) -> list[str]:
    from cxrsr_cli.serve.maintenance import find_dead

    if bool(keys) == all_:
        raise UsageError("give either keys or --all")
    for key in keys or []:
        # What an unset variable gives must not mean all.
        if not re.fullmatch(r"[0-9a-f]{6,32}", key):
            raise UsageError("a key is given by 6 of its 32 hexadecimal digits at least")
    chosen = find_dead(survey, keys or [])
    if not chosen:
        raise NoInputError("no such instance is dead")
    return chosen


def _line(item: QueueItem) -> str:
    arrived = datetime.fromtimestamp(item.arrived, UTC).isoformat(timespec="seconds")
    details = "".join(f"  {text}" for text in (item.rule, item.reason) if text)
    peer = f"{item.calling_ae} {item.address}".strip()
    return f"{item.key}  {item.state:<8}  {arrived}  {peer}{details}"
