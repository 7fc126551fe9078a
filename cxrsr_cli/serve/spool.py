"""The spool: the folder of a node with received files, outputs and dead letters."""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cxrsr_cli import __version__
from cxrsr_cli.batch.ledger import LEDGER_NAME
from cxrsr_cli.common.files import (
    TEMPORARY_PREFIX,
    TEMPORARY_SUFFIX,
    atomic_write,
    fsync_path,
)
from cxrsr_cli.errors import OutputError
from cxrsr_cli.receive.store_sink import ReceivedInstance

_FOLDERS = ("arriving", "received", "outputs", "dead")
_KEY_LENGTH = 32
_SCHEMA = "cxrsr-dead-letter/1"


@dataclass(frozen=True, slots=True)
class Spool:
    """A folder on a local file system, used by one node at a time.

    Attributes
    ----------
    root : Path
        The folder. ``arriving`` holds files that are being received, ``received``
        acknowledged ones, ``outputs`` the upscaled ones, ``dead`` those given up, with
        their reasons. cxrsr generates all names.

    Notes
    -----
    Methods raise `OutputError` for errors of the disk.
    """

    root: Path

    @property
    def ledger(self) -> Path:
        """The file of ledger and queue."""
        return self.root / LEDGER_NAME

    @property
    def exists(self) -> bool:
        """Whether the folder is a spool: the output folder of a batch has only a ledger."""
        return self.ledger.is_file() and all((self.root / name).is_dir() for name in _FOLDERS)

    @property
    def incoming(self) -> Path:
        """The folder of files that are not acknowledged yet."""
        return self.root / "arriving"

    def received(self, key: str) -> Path:
        """Return the path of an acknowledged instance."""
        return self.root / "received" / f"{key}.dcm"

    def output(self, key: str) -> Path:
        """Return the path of its output."""
        return self.root / "outputs" / f"{key}.dcm"

    def dead(self, key: str) -> Path:
        """Return its path if it is dead; a file with the reason is beside it."""
        return self.root / "dead" / f"{key}.dcm"

    def _reason(self, key: str) -> Path:
        return self.root / "dead" / f"{key}.reason.json"

    def make(self) -> None:
        """Create the folders. Only the owner may read them, as they hold patients' images."""
        with self._os_errors_as_output_error("cannot use the spool"):
            self.root.mkdir(parents=True, exist_ok=True)
            for folder in (self.root, *(self.root / name for name in _FOLDERS)):
                folder.mkdir(exist_ok=True)
                folder.chmod(0o700)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the spool against other nodes.

        Raises
        ------
        OutputError
            If another node uses it.
        """
        with self._os_errors_as_output_error("cannot lock the spool"):
            descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with self._os_errors_as_output_error("cannot lock the spool"):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise OutputError(
                        f"another cxrsr serve uses {self.root}; give each its own spool"
                    ) from None
            yield
        finally:
            os.close(descriptor)

    def move_to_received(self, source: Path, key: str) -> None:
        """Move a flushed file to the acknowledged ones."""
        target = self.received(key)
        with self._os_errors_as_output_error("cannot write to the spool"):
            source.replace(target)
            fsync_path(target.parent)

    def write_dead_letter(self, key: str, reason: str) -> None:
        """Link a dead instance into the folder ``dead``, with a file of the reason."""
        source, dead = self.received(key), self.dead(key)
        letter = {
            "schema": _SCHEMA,
            "key": key,
            "reason": reason,
            "software": f"cxrsr {__version__}",
        }
        with self._os_errors_as_output_error("no dead letter written to"):
            with atomic_write(self._reason(key)) as temporary:
                temporary.write_text(json.dumps(letter, indent=2) + "\n", encoding="utf-8")
            if source.exists() and not dead.exists():
                _link(source, dead)

    def has_dead_letter(self, key: str) -> bool:
        """Tell whether the dead letter of an instance exists."""
        return self._reason(key).exists()

    def remove_dead_letter(self, key: str) -> None:
        """Remove the dead letter of an instance; its other files stay."""
        self._remove(self.dead(key), self._reason(key))

    def remove_output(self, key: str) -> None:
        """Remove the output of an instance."""
        self._remove(self.output(key))

    def reset(self, key: str) -> None:
        """Remove all files of an instance except the received one."""
        self.remove_dead_letter(key)
        self.remove_output(key)

    def clear(self, key: str) -> None:
        """Remove all files of an instance."""
        self.reset(key)
        self._remove(self.received(key))

    def keys(self, folder: str) -> list[str]:
        """Return the keys of instances with files in one of the folders."""
        with self._os_errors_as_output_error("cannot read the spool"):
            stems = {path.name.partition(".")[0] for path in (self.root / folder).iterdir()}
        return sorted(filter(is_key, stems))

    def remove_partial_files(self) -> None:
        """Remove the incomplete files of a killed process; the spool must be locked."""
        pattern = f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}"
        with self._os_errors_as_output_error("cannot read the spool"):
            self._remove(*self.root.glob(pattern), *self.root.glob(f"*/{pattern}"))

    def _remove(self, *paths: Path) -> None:
        with self._os_errors_as_output_error("cannot remove a file from"):
            for path in paths:
                path.unlink(missing_ok=True)

    @contextmanager
    def _os_errors_as_output_error(self, what: str) -> Iterator[None]:
        """Translate errors of the disk, and leave out the names of files.

        Raises
        ------
        OutputError
            Instead of an `OSError`.
        """
        try:
            yield
        except OSError as error:
            raise OutputError(f"{what} {self.root}: {error.strerror or 'I/O error'}") from error


def is_key(text: str) -> bool:
    """Tell whether a text is the key of an instance."""
    return re.fullmatch(f"[0-9a-f]{{{_KEY_LENGTH}}}", text) is not None


def instance_key(instance: ReceivedInstance) -> str:
    """Return the key of an instance; the same object sent again has the same key.

    It is a hash of the SOP Instance UID and the data set, without the File Meta
    Information, which names the version of cxrsr.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    with instance.path.open("rb") as opened:
        opened.seek(instance.dataset_offset)
        digest = hashlib.file_digest(opened, "sha256")
    digest.update(instance.sop_instance_uid.encode("ascii", "replace"))
    return digest.hexdigest()[:_KEY_LENGTH]


def _link(source: Path, target: Path) -> None:
    """Link a file to a second path; copy it if the file system has no links."""
    with suppress(FileExistsError):
        try:
            os.link(source, target)
        except FileExistsError:
            raise
        except OSError:
            with atomic_write(target, overwrite=False) as temporary:
                shutil.copyfile(source, temporary)
