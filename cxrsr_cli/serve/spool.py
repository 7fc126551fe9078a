"""The node's own folder: what arrived, what was made of it, what was given up."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cxrsr_cli import __version__
from cxrsr_cli.batch.ledger import LEDGER_NAME
from cxrsr_cli.errors import OutputError
from cxrsr_cli.serve.state import FINAL, State
from cxrsr_cli.write.atomic import flush, replacing

_KEY_LENGTH = 32
_SCHEMA = "cxrsr-dead-letter/1"


@dataclass(frozen=True, slots=True)
class Spool:
    """A folder on one local file system, used by one node at a time.

    Attributes
    ----------
    root : Path
        The folder. ``arriving`` holds what is being received, ``received`` what was
        acknowledged, ``outputs`` what was made of it, ``dead`` what was given up, each
        with its reason. All names are ours.
    """

    root: Path

    @property
    def ledger(self) -> Path:
        """The file of ledger and queue."""
        return self.root / LEDGER_NAME

    @property
    def arriving(self) -> Path:
        """The folder of what is not acknowledged yet."""
        return self.root / "arriving"

    def received(self, key: str) -> Path:
        """Return where an acknowledged instance lies."""
        return self.root / "received" / f"{key}.dcm"

    def output(self, key: str) -> Path:
        """Return where its output lies."""
        return self.root / "outputs" / f"{key}.dcm"

    def dead(self, key: str) -> Path:
        """Return where it lies if it was given up; its reason lies beside it."""
        return self.root / "dead" / f"{key}.dcm"

    def _reason(self, key: str) -> Path:
        return self.root / "dead" / f"{key}.reason.json"

    def make(self) -> None:
        """Make the folders, which hold patients' images, for their owner only.

        Raises
        ------
        OutputError
            If they cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for name in ("arriving", "received", "outputs", "dead"):
                (self.root / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot use the spool {self.root}: {error.strerror}") from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other nodes out of this spool.

        Raises
        ------
        OutputError
            If one is in it.
        """
        descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise OutputError(
                    f"another cxrsr serve works in {self.root}; give each its own spool"
                ) from error
            yield
        finally:
            os.close(descriptor)

    def keep(self, arrived: Path, key: str) -> None:
        """Move a file that arrived to where acknowledged ones lie, proof against power loss."""
        flush(arrived)
        target = self.received(key)
        arrived.replace(target)
        flush(target.parent)

    def lay_out(self, key: str, reason: str) -> None:
        """Show a dead instance, and why, where people look for it.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        source, dead = self.received(key), self.dead(key)
        words = {
            "schema": _SCHEMA,
            "key": key,
            "reason": reason,
            "software": f"cxrsr {__version__}",
        }
        try:
            with replacing(self._reason(key)) as temporary:
                temporary.write_text(json.dumps(words, indent=2) + "\n", encoding="utf-8")
            if source.exists() and not dead.exists():
                _link(source, dead)
        except OSError as error:
            raise OutputError(f"no dead letter written: {error.strerror}") from error

    def take_back(self, key: str) -> None:
        """Remove a dead instance from where it is shown; its files stay."""
        self.dead(key).unlink(missing_ok=True)
        self._reason(key).unlink(missing_ok=True)

    def clear(self, key: str) -> None:
        """Remove all files of an instance."""
        self.take_back(key)
        self.output(key).unlink(missing_ok=True)
        self.received(key).unlink(missing_ok=True)

    def recover(self, state_of: Callable[[str], State | None]) -> None:
        """Make the files agree with the queue after a process that was killed.

        Parameters
        ----------
        state_of : callable
            Tells where an instance stands. A file of one that was never acknowledged
            is removed: its sender was told nothing, and sends again.
        """
        for folder in ("received", "outputs", "dead"):
            for path in (self.root / folder).glob("*.*"):
                key = path.name[:_KEY_LENGTH]
                state = state_of(key)
                if state is None or state in FINAL:
                    path.unlink(missing_ok=True)
                elif folder == "dead" and state is not State.DEAD:
                    self.take_back(key)


def key_of(sop_instance_uid: str, data: Path) -> str:
    """Return the key of an instance: the same object sent again has the same.

    Parameters
    ----------
    sop_instance_uid : str
        Of the instance.
    data : Path
        Its file as received, whose meta information is ours and depends on nothing
        but the instance and its transfer syntax.

    Returns
    -------
    str
        32 hexadecimal digits, from which neither can be found again.
    """
    with data.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256")
    digest.update(sop_instance_uid.encode("ascii", "replace"))
    return digest.hexdigest()[:_KEY_LENGTH]


def _link(source: Path, target: Path) -> None:
    """Show a file at a second place; copy it where the file system has no links."""
    with suppress(FileExistsError):
        try:
            os.link(source, target)
        except FileExistsError:
            raise
        except OSError:
            with replacing(target, overwrite=False) as temporary:
                shutil.copyfile(source, temporary)
