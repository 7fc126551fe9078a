"""How files get to a worker and back: by their paths, or as bytes."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cxrsr_cli.common.files import atomic_write, ensure_unchanged, publish, temporary_name
from cxrsr_cli.dicom.write import os_errors_as_output_error
from cxrsr_cli.errors import OutputError, UnreadableFileError
from cxrsr_cli.options import Job

_COMPARED_HEAD_BYTES = 1 << 16
"""Bytes of a source that are compared. The SOP Instance UID is among them."""


class TransferMode(StrEnum):
    """How files get to a worker and back."""

    PATHS = "paths"
    """By path, on a file system that client and workers share."""
    BYTES = "bytes"
    """As content of a task and its result, through the scheduler."""


@dataclass(frozen=True, slots=True, repr=False)
class FileTransfer:
    """What a worker needs to know of one file.

    Attributes
    ----------
    source : Path or bytes
        Absolute path, or the content.
    staged : Path or None
        Where the worker writes the output: in the target's folder, under a temporary name.
        The client renames it. None if the output is returned as bytes.
    fingerprint : tuple or None
        Size of the source and SHA-256 of its first 64 KiB, if it is given by path.
    is_named : bool
        As that of the job.
    """

    source: Path | bytes
    staged: Path | None = None
    fingerprint: tuple[int, str] | None = None
    is_named: bool = True

    @classmethod
    def prepare(cls, job: Job, mode: TransferMode) -> "FileTransfer":
        """Look at a job's source, or read it.

        Raises
        ------
        UnreadableFileError
            If the source cannot be read.
        """
        with ensure_unchanged(job.source):
            if mode is TransferMode.BYTES:
                return cls(job.source.read_bytes(), is_named=job.is_named)
            source, staged = job.source.absolute(), temporary_name(job.target.absolute())
            return cls(source, staged, _fingerprint(source), job.is_named)

    @contextmanager
    def unpack_on_worker(self, scratch: Path) -> Iterator[Job]:
        """Give a worker its job; temporary files lie in a folder of `scratch`.

        Raises
        ------
        UnreadableFileError
            If the worker sees another file at the source's path, or none.
        """
        if isinstance(self.source, bytes):
            with tempfile.TemporaryDirectory(prefix="cxrsr-", dir=scratch) as folder:
                source = Path(folder) / "in.dcm"
                source.write_bytes(self.source)
                yield Job(source, source.with_name("out.dcm"), is_named=self.is_named)
            return
        try:
            seen = _fingerprint(self.source)
        except OSError:
            seen = None
        if seen != self.fingerprint:
            raise UnreadableFileError(
                "the worker sees no file at this path, or another one; if client and workers do "
                "not share a file system, use --cluster-transfer bytes"
            )
        assert self.staged is not None  # noqa: S101 - has a fingerprint
        yield Job(self.source, self.staged, is_named=self.is_named)


def save_output(
    target: Path,
    output: Path | bytes | None,
    sha256: str,
    before_publish: Callable[[str], None],
    *,
    overwrite: bool,
    permissions: int = 0o666,
) -> None:
    """Give an output its final name, on the client.

    Parameters
    ----------
    output : Path or bytes or None
        What a worker wrote, or the content that it returned.
    before_publish : callable
        Is given `sha256`, that of what the worker wrote, just before the output gets its name.

    Raises
    ------
    OutputError
        If the output is missing or damaged, or cannot be written or renamed.
    """
    with os_errors_as_output_error(target):
        if isinstance(output, Path):
            if not output.exists():
                raise OutputError(
                    f"{target}: the file that a worker wrote is not visible here, or another run "
                    "removed it; if folders are not shared, use --cluster-transfer bytes"
                )
            before_publish(sha256)
            publish(output, target, overwrite=overwrite)
            return
        if output is None or hashlib.sha256(output).hexdigest() != sha256:
            raise OutputError(f"{target}: the output was damaged on the way from the worker")
        with atomic_write(target, overwrite=overwrite, permissions=permissions) as temporary:
            temporary.write_bytes(output)
            before_publish(sha256)


def remove_staged(staged: Path | None) -> None:
    """Remove what a worker wrote, if it is still under its temporary name."""
    if staged:
        with suppress(OSError):
            staged.unlink(missing_ok=True)


def _fingerprint(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        head = hashlib.sha256(file.read(_COMPARED_HEAD_BYTES)).hexdigest()
    return path.stat().st_size, head
