"""A folder as a destination: a share that an archive watches, or an outbox."""

import os
import shutil
import stat
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cxrsr_cli.common.files import atomic_write, ensure_unchanged, sha256_file
from cxrsr_cli.connections.destination import SendOutcome, SendResult, never_stop
from cxrsr_cli.errors import CxrsrError, OutputError, UnreadableFileError, UsageError
from cxrsr_cli.send.file_header import FileHeader, file_failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder that gets copies of files, under their own names.

    Attributes
    ----------
    path : Path
        It must exist: a share that is not mounted must not fill the disk below.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    path: Path

    def check(self) -> str:
        """Check that the folder exists; see `Destination.check`."""
        try:
            mode = self.path.stat().st_mode
        except OSError as error:
            return f"cannot find {self.path}: {error.strerror or 'I/O error'}"
        if not stat.S_ISDIR(mode):
            raise UsageError(f"{self.path} is not a folder")
        may_write = os.access(self.path, os.W_OK | os.X_OK)
        return "" if may_write else f"{self.path} is not writable"

    def send(
        self, files: Sequence[Path], stop: Callable[[], bool] = never_stop
    ) -> Generator[SendResult, None, None]:
        """Copy each file completely or not at all; see `Destination.send`.

        A file that is there already counts as stored; a different file of the same name is
        not replaced, and ours is refused, unless both are the same SOP Instance.
        """
        self.check()
        for file in files:
            yield self._store(file)
            if stop():
                return

    def _store(self, file: Path) -> SendResult:
        target = self.path / file.name
        try:
            with atomic_write(target, overwrite=False) as temporary, ensure_unchanged(file):
                _copy(file, temporary)
        except FileExistsError:
            return _compare_existing(file, target)
        except UnreadableFileError as error:
            return file_failure(file, error)
        except OutputError as error:
            return SendResult(file, SendOutcome.FAILED, f"cannot write to {self.path}: {error}")
        except OSError as error:
            reason = error.strerror or "I/O error"
            return SendResult(file, SendOutcome.FAILED, f"cannot write to {self.path}: {reason}")
        return SendResult(file, SendOutcome.STORED)


def _is_same_instance(file: Path, target: Path) -> bool:
    try:
        return FileHeader.read(file).sop_instance == FileHeader.read(target).sop_instance
    except CxrsrError:
        return False


def _copy(file: Path, target: Path) -> None:
    """Copy; an error of writing, not of reading, is an OutputError."""
    with file.open("rb") as reading:
        try:
            with target.open("wb") as writing:
                shutil.copyfileobj(reading, writing)
        except OSError as error:
            raise OutputError(error.strerror or "I/O error") from None


def _compare_existing(file: Path, target: Path) -> SendResult:
    try:
        same = sha256_file(file) == sha256_file(target)
    except OSError as error:
        reason = error.strerror or "I/O error"
        return SendResult(file, SendOutcome.FAILED, f"cannot compare with {target}: {reason}")
    if same:
        return SendResult(file, SendOutcome.STORED)
    if _is_same_instance(file, target):
        # Made again from the same source, after the node had forgotten the first time.
        message = f"{target} is the same SOP Instance of another time, and is kept"
        return SendResult(file, SendOutcome.WARNED, message)
    return SendResult(
        file, SendOutcome.REFUSED, f"{target} is a different file and is not replaced"
    )
