"""Measure what a cluster costs and gains on this machine, for docs/scale.md.

    python -m benchmarks.cluster [--side 256] [--rounds 3]

Some two minutes of two cores with nothing else running. All kinds of runs are
set up first and take turns; a ratio is the median of the pairs'. The first
turn loads the models and is not counted.
"""

import argparse
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from benchmarks.machine_info import machine
from benchmarks.run_study import fill
from benchmarks.study_config import ROOT
from benchmarks.synthetic_radiographs import write
from benchmarks.timing import clock
from cxrsr_cli.batch.ledger import Ledger
from cxrsr_cli.batch.plan import plan_batch
from cxrsr_cli.batch.result import FileStatus
from cxrsr_cli.batch.runner import BatchRunner, Executor, LocalExecutor
from cxrsr_cli.cluster.address import ClusterAddress
from cxrsr_cli.cluster.connect import connected_cluster
from cxrsr_cli.cluster.file_transfer import TransferMode
from cxrsr_cli.common.process import now
from cxrsr_cli.evaluation.tables import Table
from cxrsr_cli.networks.model_files import DEFAULT_MODEL, find_model
from cxrsr_cli.options import UpscaleOptions
from cxrsr_cli.upscaler import Upscaler

PAGE = ROOT / "docs" / "scale.md"
SCALE = 4


@dataclass(frozen=True, slots=True)
class Workload:
    """A folder of equal files.

    Attributes
    ----------
    side : int
        Rows and columns.
    count : int
        Files.
    """

    side: int
    count: int

    def folder(self, parent: Path) -> Path:
        """Make it."""
        folder = parent / f"{self.side}"
        folder.mkdir(exist_ok=True)
        first = write(folder / "0.dcm", self.side, self.side)
        for number in range(1, self.count):
            shutil.copy(first, folder / f"{number}.dcm")
        return folder


TINY_IMAGES = Workload(16, 32)
"""Files that show what each costs beside the network."""

KINDS: dict[str, tuple[str, TransferMode | None]] = {
    "this process": ("", None),
    "`local:1`, paths": ("local:1", TransferMode.PATHS),
    "`local:2`, paths": ("local:2", TransferMode.PATHS),
    "`local:2`, bytes": ("local:2", TransferMode.BYTES),
}


def main() -> None:
    """Measure all kinds, and fill the table in."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    work = Workload(arguments.side, 8)
    starts, taken = measure(work, arguments.rounds)
    text = tabulate(work, starts, taken)
    note = f"{work.count} files of {work.side}x{work.side}, {arguments.rounds} rounds."
    fill(PAGE, "cluster", f"{text}\n\n{note} {machine(torch.device('cpu'))}")
    print(text)


Taken = dict[tuple[str, Workload], list[float]]
"""Seconds of each kind at each work, one after the other."""


def measure(work: Workload, rounds: int) -> tuple[dict[str, float], Taken]:
    """Return the seconds that each kind takes to start, and to do each folder."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sources = {each: each.folder(Path(folder)) for each in (work, TINY_IMAGES)}
        kinds: dict[str, Executor] = {}
        starts: dict[str, float] = {}
        for name, (address, transfer) in KINDS.items():
            kinds[name], starts[name] = clock(start, stack, address, transfer)
        taken: Taken = {}
        for turn in range(rounds + 1):
            for name, kind in kinds.items():
                for each, source in sources.items():
                    seconds = run(kind, source, Path(folder) / "out")
                    if turn:
                        taken.setdefault((name, each), []).append(seconds)
    return starts, taken


def tabulate(work: Workload, starts: dict[str, float], taken: Taken) -> str:
    """Lay out a table in Markdown."""
    here = taken["this process", work]
    least = median(taken["this process", TINY_IMAGES]) / TINY_IMAGES.count
    rows = []
    for name in KINDS:
        each = median(taken[name, TINY_IMAGES]) / TINY_IMAGES.count
        pairs = zip(here, taken[name, work], strict=True)
        rows.append(
            [
                name,
                f"{starts[name]:.1f}",
                f"{work.count / median(taken[name, work]):.2f}",
                f"{median(one / other for one, other in pairs):.2f}",
                f"{1 / each:.0f}",
                f"{1000 * (each - least):+.1f}",
            ]
        )
    titles = ["work is done by", "start s", "files/s", "to this process"]
    titles += ["next to nothing: files/s", "more a file, ms"]
    return Table([(title, 0) for title in titles], rows).as_markdown()


def start(stack: ExitStack, address: str, transfer: TransferMode | None) -> Executor:
    """Load the model here, or start a cluster and have a worker load it."""
    model, options = find_model(DEFAULT_MODEL, SCALE), UpscaleOptions(device="cpu")
    if not address:
        return LocalExecutor(Upscaler.load(model, options))
    return stack.enter_context(
        connected_cluster(
            ClusterAddress.parse(address),
            model,
            options,
            clock=now,
            transfer_mode=transfer,
        )
    )


def run(kind: Executor, source: Path, out: Path) -> float:
    """Do a folder with a ledger, as the command does; return the seconds."""
    ledger = Ledger(out / "ledger")
    started = time.perf_counter()
    statuses = [
        result.status for result in BatchRunner(kind, ledger).run(plan_batch([source], out).jobs)
    ]
    seconds = time.perf_counter() - started
    ledger.close()
    shutil.rmtree(out)
    if set(statuses) != {FileStatus.DONE}:
        raise SystemExit(f"not all was done: {statuses}")
    return seconds


if __name__ == "__main__":
    main()
