"""What a run knows of its outputs before it makes them, and writes down after."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cxrsr_cli.batch.ledger import Ledger, LedgerEntry, OutputKey
from cxrsr_cli.batch.quarantine import Quarantine
from cxrsr_cli.batch.result import FileStatus, Result
from cxrsr_cli.common.files import ensure_unchanged, remove_stale_temporaries, sha256_file
from cxrsr_cli.errors import CxrsrError, OutputError
from cxrsr_cli.options import Job, RunInfo

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunRecords:
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

    profile: RunInfo
    ledger: Ledger | None = None
    quarantine: Quarantine | None = None
    dry_run: bool = False

    def remove_stale_temporaries(self, jobs: Sequence[Job]) -> None:
        """Remove what killed runs left half written."""
        if self.dry_run:
            return
        for folder in {job.target.parent for job in jobs}:
            remove_stale_temporaries(folder)
        if self.quarantine:
            self.quarantine.remove_stale_temporaries()

    def find_completed(self, job: Job) -> Result | None:
        """Return the result of a job that the ledger knows to be done.

        Raises
        ------
        OutputError
            If its output is there, but of other work.
        NotReadableError
            If the source cannot be read.
        """
        entry = self._lookup(job)
        if entry is None:
            return None
        return Result(
            job,
            FileStatus.UP_TO_DATE,
            source_sha256=entry.key.source_sha256,
            output_sha256=entry.output_sha256,
        )

    def mark_pending(self, job: Job, source_sha256: str, output_sha256: str) -> None:
        """Write down that an output is about to get its name.

        Raises
        ------
        OutputError
            If the ledger cannot be written; the output must not get its name then.
        """
        if self.ledger:
            self.ledger.mark_pending(job.target, self._output_key(source_sha256), output_sha256)

    def finalize(self, result: Result) -> Result:
        """Account for a result: record what is done, set apart what is bad.

        Returns
        -------
        Result
            With what could not be accounted for. A job that failed because
            another process did the very same work is done already.
        """
        if result.status is FileStatus.DONE:
            return self._record(result)
        if isinstance(result.error, OutputError):
            return self._completed_by_another_process(result)
        return self._quarantine_input(result)

    def _lookup(self, job: Job) -> LedgerEntry | None:
        """Return what the ledger knows of the very same work, if its output is there."""
        if self.ledger is None or self.profile.overwrite or job.error:
            return None
        entry = self.ledger.lookup(job.target)
        if entry is None:
            return None
        with ensure_unchanged(job.source):
            difference = self._output_key(sha256_file(job.source)).difference(entry.key)
        if difference:
            raise OutputError(
                f"{job.target} exists, made {difference}; use --overwrite to replace it"
            )
        if not entry.done and not self.dry_run:
            self.ledger.mark_done(job.target, entry.key, entry.output_sha256)
            _LOG.info("recorded an output that an interrupted run had finished: %s", job.target)
        return entry

    def _output_key(self, source_sha256: str) -> OutputKey:
        return OutputKey(source_sha256, self.profile.recipe.model_sha256, self.profile.options_key)

    def _record(self, result: Result) -> Result:
        source, output = result.source_sha256, result.output_sha256
        if self.ledger and source and output:
            try:
                self.ledger.mark_done(result.job.target, self._output_key(source), output)
            except OutputError as error:
                # The output is there and was announced: the next run will find out.
                return replace(result, record_errors=[*result.record_errors, str(error)])
        return result

    def _completed_by_another_process(self, result: Result) -> Result:
        try:
            known = self.find_completed(result.job)
        except CxrsrError:
            return result
        return replace(known, timing=result.timing) if known else result

    def _quarantine_input(self, result: Result) -> Result:
        """Put a copy of a bad input into quarantine."""
        error = result.error
        if self.dry_run or not (
            self.quarantine and error and self.quarantine.should_quarantine(error)
        ):
            return result
        try:
            self.quarantine.add(result.job, error)
        except CxrsrError as failure:
            return replace(result, record_errors=[*result.record_errors, str(failure)])
        return result
