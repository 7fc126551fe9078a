"""What a run knows of its outputs before it makes them, and writes down after."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cxrsr_cli.batch.ledger import Entry, Ledger, Work
from cxrsr_cli.batch.quarantine import Quarantine
from cxrsr_cli.batch.result import Result, Status
from cxrsr_cli.errors import CxrsrError, OutputError
from cxrsr_cli.job import Job
from cxrsr_cli.profile import Profile
from cxrsr_cli.read.fingerprint import kept_still, sha256_of
from cxrsr_cli.write.atomic import remove_orphans


@dataclass(frozen=True, slots=True)
class Accounts:
    """Ledger and quarantine of a run. May be used from several threads.

    Attributes
    ----------
    profile : Profile
        What is done to the files.
    ledger : Ledger or None
        Knows what was done before; None does everything again.
    quarantine : Quarantine or None
        Takes copies of the files that could not be upscaled.
    dry_run : bool
        Nothing is written.
    """

    profile: Profile
    ledger: Ledger | None = None
    quarantine: Quarantine | None = None
    dry_run: bool = False

    def remove_orphans(self, jobs: Sequence[Job]) -> None:
        """Remove what killed runs left half written."""
        if self.dry_run:
            return
        for folder in {job.target.parent for job in jobs}:
            remove_orphans(folder)
        if self.quarantine:
            self.quarantine.remove_orphans()

    def known(self, job: Job) -> Result | None:
        """Return the result of a job that the ledger knows to be done.

        Raises
        ------
        OutputError
            If its output is there, but of other work.
        NotReadableError
            If the source cannot be read.
        """
        entry = self._recall(job)
        if entry is None:
            return None
        return Result(
            job,
            Status.ALREADY,
            source_sha256=entry.work.source_sha256,
            output_sha256=entry.output_sha256,
        )

    def announce(self, job: Job, source_sha256: str, output_sha256: str) -> None:
        """Write down that an output is about to get its name.

        Raises
        ------
        OutputError
            If the ledger cannot be written; the output must not get its name then.
        """
        if self.ledger:
            self.ledger.announce(job.target, self._work(source_sha256), output_sha256)

    def settle(self, result: Result) -> Result:
        """Account for a result: record what is done, set apart what is bad.

        Returns
        -------
        Result
            With what could not be accounted for. A job that failed because
            another process did the very same work is done already.
        """
        if result.status is Status.DONE:
            return self._record(result)
        if isinstance(result.error, OutputError):
            return self._made_meanwhile(result)
        return self._set_apart(result)

    def _recall(self, job: Job) -> Entry | None:
        """Return what the ledger knows of the very same work, if its output is there."""
        if self.ledger is None or self.profile.overwrite or job.refused:
            return None
        entry = self.ledger.recall(job.target)
        if entry is None:
            return None
        with kept_still(job.source):
            difference = self._work(sha256_of(job.source)).difference(entry.work)
        if difference:
            raise OutputError(
                f"{job.target} exists, made {difference}; use --overwrite to replace it"
            )
        if not entry.done and not self.dry_run:
            self.ledger.record(job.target, entry.work, entry.output_sha256)
        return entry

    def _work(self, source_sha256: str) -> Work:
        return Work(source_sha256, self.profile.recipe.model_sha256, self.profile.choices)

    def _record(self, result: Result) -> Result:
        source, output = result.source_sha256, result.output_sha256
        if self.ledger and source and output:
            try:
                self.ledger.record(result.job.target, self._work(source), output)
            except OutputError as error:
                # The output is there and was announced: the next run will find out.
                return replace(result, troubles=[*result.troubles, str(error)])
        return result

    def _made_meanwhile(self, result: Result) -> Result:
        try:
            known = self.known(result.job)
        except CxrsrError:
            return result
        return replace(known, timing=result.timing) if known else result

    def _set_apart(self, result: Result) -> Result:
        """Put a copy of a bad input into quarantine."""
        error = result.error
        if self.dry_run or not (self.quarantine and error and self.quarantine.concerns(error)):
            return result
        try:
            self.quarantine.take(result.job, error)
        except CxrsrError as failure:
            return replace(result, troubles=[*result.troubles, str(failure)])
        return result
