"""What a run looks up before it makes an output, and records after."""

import json
import logging
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from cxrsr_cli.batch.ledger import Ledger, LedgerEntry, OutputKey, Refusal, file_state
from cxrsr_cli.batch.quarantine import Quarantine
from cxrsr_cli.batch.result import FileStatus, Result, Timing, failed_result
from cxrsr_cli.common.files import ensure_unchanged, remove_stale_temporaries, sha256_file
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.errors import (
    CxrsrError,
    NoPixelDataError,
    NotDicomError,
    OutOfScopeError,
    OutputError,
    UnsupportedImageError,
    WorkerCrashedError,
)
from cxrsr_cli.images.picture_files import is_picture
from cxrsr_cli.images.picture_provenance import provenance_path
from cxrsr_cli.options import Job

_LOG = logging.getLogger(__name__)

MAX_CRASHES = 5
"""After this many crashes while it was processed, a file is given up as their cause."""

_REMEMBERED = {
    kind.__name__: kind
    for kind in (OutOfScopeError, UnsupportedImageError, NoPixelDataError, NotDicomError)
}
"""Refusals by a file's header, special ones first. Pixel data are decoded again in each run,
because a codec may fail for lack of time or of an extra."""


@dataclass(frozen=True, slots=True)
class RunRecords:
    """Ledger and quarantine of a run, as of `BatchRunner`. Threads may share it."""

    parameters: DerivationParameters
    ledger: Ledger | None = None
    quarantine: Quarantine | None = None
    dry_run: bool = False
    tracks_inputs: bool = True
    started: dict[Path, Job] = field(default_factory=dict)
    """Jobs that the ledger has as started, by their target."""
    names: dict[str, Path] = field(default_factory=dict)
    """Outputs of this run by their names without case and form of accents."""
    states: dict[Path, str] = field(default_factory=dict)
    """What `file_state` said of sources before they were read, by their target."""

    def remove_stale_temporaries(self, jobs: Sequence[Job]) -> None:
        """Remove temporary files of killed runs."""
        if self.dry_run:
            return
        for folder in {job.target.parent for job in jobs}:
            remove_stale_temporaries(folder)
        if self.quarantine:
            self.quarantine.remove_stale_temporaries(jobs)

    def separate_suspects(self, jobs: Sequence[Job]) -> tuple[list[Job], list[Job]]:
        """Separate the jobs that were in progress when a process died from all others."""
        counts = dict[Path, int]()
        if self.ledger and self.tracks_inputs:
            with suppress(OutputError):  # each file will report it
                counts = self.ledger.crash_counts(jobs)
        suspects = [
            replace(job, error=_too_many_crashes(counts[job.target]))
            if counts[job.target] >= MAX_CRASHES and job.error is None
            else job
            for job in jobs
            if job.target in counts
        ]
        return [job for job in jobs if job.target not in counts], suspects

    def start(self, job: Job) -> Result | None:
        """Return the result of a job that is known, else record that work on it begins.

        Raises
        ------
        CxrsrError
            As `find_known`, or if the ledger cannot be written.
        """
        known = self.find_known(job)
        if known or job.error or self.dry_run or not (self.ledger and self.tracks_inputs):
            return known
        self.ledger.mark_started(job)
        self.started[job.target] = job
        return None

    def leave_unfinished(self) -> None:
        """Take back the start of jobs that this run leaves to the next one."""
        self._unmark_started(list(self.started.values()), ended=False)

    def _unmark_started(self, jobs: Sequence[Job], *, ended: bool) -> None:
        marked = [job for job in jobs if self.started.pop(job.target, None)]
        if marked and self.ledger:
            try:
                self.ledger.unmark_started(marked, ended=ended)
            except OutputError as error:
                _LOG.warning("%s", error)

    def find_known(self, job: Job) -> Result | None:
        """Return the result of a job that the ledger knows as done or refused, else None.

        Raises
        ------
        CxrsrError
            As `find_completed`.
        """
        completed = self.find_completed(job)
        if completed or self.ledger is None or job.error or not self.tracks_inputs:
            return completed
        # Before the file is read: a change while it is read must not go unnoticed.
        self.states[job.target] = file_state(job.source)
        refusal = self.ledger.find_refusal(job.target)
        if (
            refusal is None
            or self.parameters.options.overwrite
            or (refusal.source, refusal.judged_with)
            != (self.states[job.target], self._judged_with())
        ):
            return None
        return failed_result(job, _REMEMBERED[refusal.kind](refusal.reason), Timing())

    def find_completed(self, job: Job) -> Result | None:
        """Return the result of a job that the ledger knows as done, else None.

        Raises
        ------
        OutputError
            If the output exists, but was made from another source, model or options; or is a
            picture without its provenance.
        UnreadableFileError
            If the source cannot be read.
        """
        entry = self._lookup(job)
        if entry is None:
            return None
        if is_picture(job.target) and not provenance_path(job.target).exists():
            raise OutputError(
                f"{provenance_path(job.target)} is missing; use --overwrite to write {job.target} "
                "and it again"
            )
        return Result(
            job,
            FileStatus.UP_TO_DATE,
            source_sha256=entry.key.source_sha256,
            output_sha256=entry.output_sha256,
        )

    def mark_pending(self, job: Job, source_sha256: str, output_sha256: str) -> None:
        """Record that an output is about to get its name.

        Raises
        ------
        OutputError
            If the ledger cannot be written, or the file system takes another output of this run
            for the same file. The output must not get its name then.
        """
        name = unicodedata.normalize("NFC", str(job.target)).casefold()
        other = self.names.setdefault(name, job.target)
        with suppress(OSError):
            if other != job.target and other.samefile(job.target):
                raise OutputError(f"{other} and {job.target} are the same file on this file system")
        if self.ledger:
            self.ledger.mark_pending(job.target, self._output_key(source_sha256), output_sha256)

    def finalize(self, result: Result) -> Result:
        """Record an output that was written; copy a bad input to the quarantine.

        Returns
        -------
        Result
            With `record_errors`. A job that failed because another process did the same
            work becomes `FileStatus.UP_TO_DATE`.
        """
        self._unmark_started([result.job], ended=True)
        state = self.states.pop(result.job.target, None)
        if result.status is FileStatus.DONE:
            return self._record(result)
        if state:
            result = self._remember_refusal(result, state)
        if result.status is FileStatus.SKIPPED:
            return result
        if isinstance(result.error, OutputError):
            return self._completed_by_another_process(result)
        return self._quarantine_input(result)

    def _lookup(self, job: Job) -> LedgerEntry | None:
        """Return the ledger's entry of the same work, if the output exists."""
        if self.ledger is None or self.parameters.options.overwrite or job.error:
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
        parameters = self.parameters
        return OutputKey(source_sha256, parameters.model_sha256, parameters.options.ledger_key())

    def _record(self, result: Result) -> Result:
        source, output = result.source_sha256, result.output_sha256
        if self.ledger and source and output:
            try:
                self.ledger.mark_done(result.job.target, self._output_key(source), output)
            except OutputError as error:
                # The output exists and is marked as pending: the next run will complete the entry.
                return replace(result, record_errors=[*result.record_errors, str(error)])
        return result

    def _judged_with(self) -> str:
        options = self.parameters.options
        judging = (options.as_dict()[name] for name in ("scale", "allow", "body_parts", "bits"))
        return json.dumps([self.parameters.software, *judging, options.ledger_key()])

    def _remember_refusal(self, result: Result, state: str) -> Result:
        """Record why a file was refused, if that depends on the file alone."""
        kinds = [name for name, kind in _REMEMBERED.items() if isinstance(result.error, kind)]
        if not kinds or self.dry_run or not self.ledger:
            return result
        refusal = Refusal(state, self._judged_with(), kinds[0], str(result.error))
        try:
            if self.ledger.find_refusal(result.job.target) != refusal:
                self.ledger.mark_refused(result.job.target, refusal)
        except OutputError as error:
            return replace(result, record_errors=[*result.record_errors, str(error)])
        return result

    def _completed_by_another_process(self, result: Result) -> Result:
        try:
            known = self.find_completed(result.job)
        except CxrsrError:
            return result
        return replace(known, timing=result.timing) if known else result

    def _quarantine_input(self, result: Result) -> Result:
        """Copy an input that is bad to the quarantine."""
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


def _too_many_crashes(count: int) -> WorkerCrashedError:
    return WorkerCrashedError(
        f"the process ended {count} times while it worked on this file; it is not tried again "
        "until it changes, or with --no-ledger"
    )
