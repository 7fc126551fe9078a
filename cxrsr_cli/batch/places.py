"""Where a run writes beside its outputs, and that nothing is in the way there."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cxrsr_cli.batch.plan import BatchPlan
from cxrsr_cli.errors import OutputError


@dataclass(frozen=True, slots=True)
class RecordPaths:
    """Files and folders that a run keeps its accounts in.

    Attributes
    ----------
    ledger, report : Path or None
        Files.
    quarantine : Path or None
        A folder.
    """

    ledger: Path | None = None
    report: Path | None = None
    quarantine: Path | None = None

    def __iter__(self) -> Iterator[Path]:
        """List what is given."""
        yield from filter(None, (self.ledger, self.report, self.quarantine))

    def check(self, plan: BatchPlan) -> None:
        """Refuse places where an input, an output or another of them is.

        Parameters
        ----------
        plan : Plan
            What the run reads and writes.

        Raises
        ------
        OutputError
            Naming the first of them.
        """
        taken = {job.source.resolve(): "an input" for job in plan.jobs}
        taken |= {job.target.resolve(): "an output" for job in plan.jobs}
        for name, path in (("ledger", self.ledger), ("report", self.report)):
            if path is None:
                continue
            what = taken.setdefault(path.resolve(), f"the {name}")
            if what != f"the {name}":
                raise OutputError(f"{path} is {what}; choose another place for the {name}")
        if self.quarantine:
            folder = self.quarantine.resolve()
            if plan.output_folder and plan.output_folder.resolve().is_relative_to(folder):
                raise OutputError(
                    f"{self.quarantine} holds the output folder; an archive that watches it "
                    "would take bad inputs for outputs: choose another quarantine"
                )
            if any(path.is_relative_to(folder) for path, what in taken.items()):
                raise OutputError(
                    f"{self.quarantine} holds inputs or outputs of this run; "
                    "choose another quarantine"
                )
