"""Verify many derived objects, several at a time, and report on them."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from cxrsr_cli.batch.discover import find_inputs
from cxrsr_cli.batch.report import SCHEMA as RUN_SCHEMA
from cxrsr_cli.batch.report import display_path
from cxrsr_cli.common.files import sha256_file
from cxrsr_cli.common.process import now
from cxrsr_cli.dicom.source import HEAD_BYTES, has_dicom_prefix
from cxrsr_cli.errors import (
    CxrsrError,
    ExitCode,
    InternalError,
    NoInputError,
    UnreadableFileError,
    UsageError,
)
from cxrsr_cli.inference.noise_curve import NoiseCurve
from cxrsr_cli.networks.config import Agreement
from cxrsr_cli.verify.findings import Aspect, ClaimStatus, Finding
from cxrsr_cli.verify.recompute import Recomputation
from cxrsr_cli.verify.verify import VerificationReport, verify
from cxrsr_cli.versions import NOTICE, versions

SCHEMA = "cxrsr-verification/2"
"""New keys keep the number; a key that is removed or changes its meaning needs another one."""
_HASH_CLAIM = "source and output are the files of the run's report (SHA-256)"


class AuditStatus(StrEnum):
    """What became of a pair of files."""

    HOLDS = "holds"
    """No claim fails; some may not have been checked."""
    FAILS = "fails"
    NOT_CHECKED = "not checked"
    """No claim fails, but the output could not be made again, which was asked for."""
    ERROR = "error"
    """A file could not be read."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A source and its output."""

    source: Path
    derived: Path
    sha256s: tuple[str, str] | None = None
    """Of both, as a run's report has them."""
    error: CxrsrError | None = None
    """Why they cannot be verified, if planning found a reason."""


@dataclass(frozen=True, slots=True)
class AuditError:
    """An error as a report has it."""

    kind: str
    message: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class DeviationRecord:
    """`AgreementDeviation` as a report has it, in stored units."""

    rms: float
    mean: float
    largest: float
    beyond: float


@dataclass(frozen=True, slots=True)
class FileAudit:
    """What a report says of one output; without patient data."""

    source: str
    output: str
    status: AuditStatus
    error: AuditError | None = None
    scale: int | None = None
    deviation: DeviationRecord | None = None
    lr_psnr: float | None = None
    """In dB; null if it is infinite."""
    noise: list[NoiseCurve] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The report of an audit."""

    schema: str
    notice: str
    versions: dict[str, str | None]
    started: datetime
    finished: datetime
    exit_code: int
    counts: dict[AuditStatus, int]
    files: list[FileAudit]

    @classmethod
    def of(cls, files: Sequence[FileAudit], started: datetime) -> "AuditReport":
        """Sum up an audit that has ended."""
        counts = Counter(file.status for file in files)
        return cls(
            SCHEMA,
            NOTICE,
            versions(),
            started,
            now(),
            int(exit_code(files)),
            {status: counts[status] for status in AuditStatus},
            list(files),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types, the schema's name first."""
        plain: dict[str, Any] = TypeAdapter(AuditReport).dump_python(self, mode="json")
        return plain


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of `AuditReport`."""
    return TypeAdapter(AuditReport).json_schema(mode="serialization")


@dataclass(frozen=True, slots=True)
class Auditor:
    """Verifies pairs of files.

    Attributes
    ----------
    agreement, recomputation
        As of `verify`.
    map_file : Path or None
        As of `verify`; for a single pair.
    workers : int
        Pairs that are verified at a time.
    """

    agreement: Agreement | None = None
    recomputation: Recomputation | None = None
    map_file: Path | None = None
    workers: int = 1

    def run(self, pairs: Sequence[Pair]) -> Iterator[FileAudit]:
        """Verify every pair; yield the results in order."""
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                yield from pool.map(self._audit, pairs)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _audit(self, pair: Pair) -> FileAudit:
        names = display_path(pair.source), display_path(pair.derived)
        try:
            if pair.error:
                raise pair.error
            report = verify(
                pair.source,
                pair.derived,
                agreement=self.agreement,
                recomputation=self.recomputation,
                map_file=self.map_file,
            )
            same_files = list(_check_hashes(pair))
        except Exception as error:  # a defect that one file shows must not stop the others
            known = error if isinstance(error, CxrsrError) else InternalError.of(error)
            is_mismatch = known.exit_code is ExitCode.VERIFICATION
            return FileAudit(
                *names,
                AuditStatus.FAILS if is_mismatch else AuditStatus.ERROR,
                AuditError(type(known).__name__, str(known), int(known.exit_code)),
            )
        return _record(names, report, same_files, must_recompute=self.recomputation is not None)


def _record(
    names: tuple[str, str],
    report: VerificationReport,
    same_files: list[Finding],
    *,
    must_recompute: bool,
) -> FileAudit:
    deviation = report.deviation
    findings = [*same_files, *report.findings]
    status = AuditStatus.HOLDS
    if must_recompute and report.findings[-1].status is ClaimStatus.NOT_CHECKED:
        status = AuditStatus.NOT_CHECKED
    if any(each.fails for each in findings):
        status = AuditStatus.FAILS
    return FileAudit(
        *names,
        status,
        scale=report.scale,
        deviation=DeviationRecord(
            deviation.rms, deviation.mean, deviation.largest, deviation.beyond
        ),
        lr_psnr=report.lr_psnr if isfinite(report.lr_psnr) else None,
        noise=report.noise,
        findings=findings,
    )


def _check_hashes(pair: Pair) -> Iterator[Finding]:
    if pair.sha256s:
        wrong = [
            name
            for name, path, sha256 in zip(
                ("source", "output"), (pair.source, pair.derived), pair.sha256s, strict=True
            )
            if sha256_file(path) != sha256
        ]
        yield Finding.of(Aspect.FILE, _HASH_CLAIM, not wrong, ", ".join(wrong))


def exit_code(files: Sequence[FileAudit]) -> ExitCode:
    """Return the exit code of an audit: a claim that fails counts more than what was not done."""
    errors = [ExitCode(file.error.exit_code) for file in files if file.error]
    if any(file.status is AuditStatus.FAILS for file in files):
        return ExitCode.VERIFICATION
    undone = len(errors) + sum(file.status is AuditStatus.NOT_CHECKED for file in files)
    if not undone:
        return ExitCode.OK
    if undone < len(files):
        return ExitCode.SOME_FAILED
    return errors[0] if len(files) == len(errors) == 1 else ExitCode.ALL_FAILED


def pair_files(source: Path, derived: Path) -> list[Pair]:
    """Pair a file with its output, or each output in a folder with the source at the same path.

    Files in the folder of outputs that are not DICOM are left out, such as a ledger.
    """
    if not derived.is_dir():
        return [Pair(source / derived.name if source.is_dir() else source, derived)]
    pairs = list[Pair]()
    for found in find_inputs(derived):
        if found.error is None and not _is_dicom(found.path):
            continue
        original, error = source / found.relative_path, found.error
        if source.is_file():
            original = source
        elif error is None and not original.exists():
            error = NoInputError(f"no source {display_path(original)}")
        pairs.append(Pair(original, found.path, error=error))
    return pairs or [Pair(source, derived, error=NoInputError(f"no output in {derived}"))]


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return has_dicom_prefix(file.read(HEAD_BYTES))
    except OSError:
        return True  # it is reported


def pair_files_of_report(path: Path) -> list[Pair]:
    """Return what a run's report lists as done, with the hashes that it states.

    Raises
    ------
    UnreadableFileError
        If the report cannot be read.
    UsageError
        If it is not a report of ``cxrsr upscale``.
    """
    try:
        report = json.loads(path.read_bytes())
        if report["schema"] != RUN_SCHEMA:
            raise ValueError
        pairs = [
            Pair(
                Path(file["source"]),
                Path(file["output"]),
                (file["source_sha256"], file["output_sha256"]),
            )
            for file in report["files"]
            if file["output_sha256"]
        ]
    except OSError as error:
        raise UnreadableFileError(f"cannot read {path} ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{path} is not a report of cxrsr upscale ({RUN_SCHEMA})") from None
    none = NoInputError(f"{path} lists no output")
    return pairs or [Pair(path, path, error=none)]
