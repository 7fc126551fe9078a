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


class TransferMode(StrEnum):
    """How files get to a worker and back."""

    PATHS = "paths"
    """On a file system that client and workers share."""
    BYTES = "bytes"
    """Through the scheduler."""


_COMPARED_HEAD_BYTES = 1 << 16
"""Bytes that tell two radiographs apart: the SOP Instance UID is among them."""


@dataclass(frozen=True, slots=True)
class SharedPathTransfer:
    """A file that the worker sees, too.

    Attributes
    ----------
    source : Path
        Absolute.
    staged : Path
        Where the worker writes: beside the target, under a name that is an
        orphan's. Only the client gives outputs their names.
    size : int
        Of the source.
    head_sha256 : str
        Of the source's first 64 KiB.
    """

    source: Path
    staged: Path
    size: int
    head_sha256: str

    @classmethod
    def of(cls, job: Job) -> "SharedPathTransfer":
        """Look at a source; raises NotReadableError."""
        source = job.source.absolute()
        with ensure_unchanged(job.source):
            size, head = _look(source)
        return cls(source, temporary_name(job.target.absolute()), size, head)

    def without_content(self) -> "SharedPathTransfer":
        """Return what delivers; there is no content."""
        return self

    @contextmanager
    def unpack_on_worker(self, _scratch: Path) -> Iterator[Job]:
        """Give a worker its job.

        Raises
        ------
        NotReadableError
            If the worker sees another file there, or none.
        """
        try:
            seen = _look(self.source)
        except OSError:
            seen = None
        if seen != (self.size, self.head_sha256):
            raise UnreadableFileError(
                "the worker sees another file there, or none; are the folders on a file system "
                "that all share? If not, use --cluster-transfer bytes"
            )
        yield Job(self.source, self.staged)

    def content(self, _job: Job) -> bytes | None:
        """Nothing goes back."""
        return None

    def save_output(
        self,
        target: Path,
        _content: bytes | None,
        sha256: str,
        announce: Callable[[str], None],
        *,
        overwrite: bool,
    ) -> None:
        """Give what the worker wrote its name, announced before.

        Raises
        ------
        OutputError
            If that cannot be.
        """
        with os_errors_as_output_error(target):
            if not self.staged.exists():
                raise OutputError(
                    f"{target}: what a worker wrote is not to be seen here, or was taken for an "
                    "orphan by another run; use --cluster-transfer bytes if folders are not shared"
                )
            announce(sha256)
            publish(self.staged, target, overwrite=overwrite)

    def discard(self) -> None:
        """Leave nothing under the passing name."""
        with suppress(OSError):
            self.staged.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, repr=False)
class BytesTransfer:
    """A file's content.

    Attributes
    ----------
    source : bytes
        All of it.
    """

    source: bytes

    @classmethod
    def of(cls, job: Job) -> "BytesTransfer":
        """Read a source; raises NotReadableError."""
        with ensure_unchanged(job.source):
            return cls(job.source.read_bytes())

    def without_content(self) -> "BytesTransfer":
        """Return what delivers, without the source."""
        return BytesTransfer(b"")

    @contextmanager
    def unpack_on_worker(self, scratch: Path) -> Iterator[Job]:
        """Give a worker its job, in a folder that is removed afterwards."""
        with tempfile.TemporaryDirectory(prefix="cxrsr-", dir=scratch) as folder:
            source = Path(folder) / "in.dcm"
            source.write_bytes(self.source)
            yield Job(source, source.with_name("out.dcm"))

    def content(self, job: Job) -> bytes | None:
        """Return the output, to be sent back."""
        return job.target.read_bytes()

    def save_output(
        self,
        target: Path,
        content: bytes | None,
        sha256: str,
        announce: Callable[[str], None],
        *,
        overwrite: bool,
    ) -> None:
        """Write what came, announced before it gets its name.

        Raises
        ------
        OutputError
            If it cannot be written, or is not what the worker wrote.
        """
        if content is None or hashlib.sha256(content).hexdigest() != sha256:
            raise OutputError(f"{target}: what came from the worker is not what it wrote")
        with (
            os_errors_as_output_error(target),
            atomic_write(target, overwrite=overwrite) as temporary,
        ):
            temporary.write_bytes(content)
            announce(sha256)

    def discard(self) -> None:
        """Leave nothing; nothing is there."""


FileTransfer = SharedPathTransfer | BytesTransfer


def prepare_transfer(job: Job, shipping: TransferMode) -> FileTransfer:
    """Make the parcel of a job.

    Raises
    ------
    NotReadableError
        If its source cannot be read.
    """
    return SharedPathTransfer.of(job) if shipping is TransferMode.PATHS else BytesTransfer.of(job)


def _look(path: Path) -> tuple[int, str]:
    with path.open("rb") as opened:
        head = hashlib.sha256(opened.read(_COMPARED_HEAD_BYTES)).hexdigest()
    return path.stat().st_size, head
