"""The ledger: what was done, so that a rerun does only what is left.

One SQLite file. An output is announced with its hash before it gets its name
and recorded after; whatever happens between the two, the next run can tell
from the hash on which side of the rename it happened. The ledger holds paths
and hashes, nothing from inside a file.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cxrsr_cli.errors import OutputError
from cxrsr_cli.read.fingerprint import sha256_of
from cxrsr_cli.write.atomic import replacing

LEDGER_NAME = ".cxrsr-ledger.sqlite"
"""In the output folder; hidden, so that a folder walk leaves it out."""

_APPLICATION_ID = 0x63787273
_VERSION = 1
_PATIENCE = 60.0
"""Seconds to wait for another process that writes to the ledger."""

_SCHEMA = """
CREATE TABLE outputs (
    target TEXT NOT NULL,
    source_sha256 TEXT NOT NULL,
    model_sha256 TEXT NOT NULL,
    options TEXT NOT NULL,
    output_sha256 TEXT NOT NULL,
    done INTEGER NOT NULL,
    changed TEXT NOT NULL,
    PRIMARY KEY (target, output_sha256)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Work:
    """What is done to a source; the same work need not be done twice.

    Attributes
    ----------
    source_sha256, model_sha256 : str
        Of the files.
    options : str
        What the user chose. Not the machine nor the version: those change
        without anybody wanting everything done again.
    """

    source_sha256: str
    model_sha256: str
    options: str

    def difference(self, other: "Work") -> str:
        """Say how `other` was done otherwise; nothing if it is the same."""
        if self.source_sha256 != other.source_sha256:
            return "of another source"
        if self.model_sha256 != other.model_sha256:
            return "by another model"
        return "with other options" if self.options != other.options else ""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the ledger says of an output.

    Attributes
    ----------
    work : Work
        What it was made by.
    output_sha256 : str
        Of the file.
    done : bool
        False if it was announced only.
    """

    work: Work
    output_sha256: str
    done: bool


class Ledger:
    """A ledger file, made when the first output is announced.

    Parameters
    ----------
    path : Path
        The file; its folder is made if need be. Outputs in that folder are
        named relative to it, so that the folder can be moved.
    read_only : bool
        Never write to it.

    Notes
    -----
    May be used from several threads, and by several processes at once: an
    output that two of them announce has two entries, told apart by its hash.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._read_only = read_only
        self._folder = path.parent.resolve()
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def check(self) -> None:
        """Refuse a file that is there and is no ledger.

        Raises
        ------
        OutputError
            If so, or it cannot be read.
        """
        if self.path.exists():
            with self._use():
                pass

    def recall(self, target: Path) -> Entry | None:
        """Return what is known of an output as it is.

        Parameters
        ----------
        target : Path
            The output.

        Returns
        -------
        Entry or None
            None if there is no output, or it is not as this ledger knows it.

        Raises
        ------
        OutputError
            If the file is no ledger, or cannot be read.
        """
        if self._connection is None and not self.path.exists():
            return None
        try:
            output_sha256 = sha256_of(target)
        except OSError:
            return None
        with self._use() as connection:
            row = connection.execute(
                "SELECT source_sha256, model_sha256, options, output_sha256, done"
                " FROM outputs WHERE target = ? AND output_sha256 = ?",
                (self._name(target), output_sha256),
            ).fetchone()
        return Entry(Work(*row[:3]), row[3], bool(row[4])) if row else None

    def announce(self, target: Path, work: Work, output_sha256: str) -> None:
        """Write down that an output is about to get its name.

        Raises
        ------
        OutputError
            If the ledger cannot be written.
        """
        self._write(target, Entry(work, output_sha256, done=False))

    def record(self, target: Path, work: Work, output_sha256: str) -> None:
        """Write down that an output has got its name.

        Raises
        ------
        OutputError
            If the ledger cannot be written.
        """
        self._write(target, Entry(work, output_sha256, done=True))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection:
                self._connection.close()
                self._connection = None

    def _write(self, target: Path, entry: Entry) -> None:
        work = entry.work
        with self._use() as connection, connection:
            connection.execute(
                "INSERT OR REPLACE INTO outputs VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    self._name(target),
                    work.source_sha256,
                    work.model_sha256,
                    work.options,
                    entry.output_sha256,
                    entry.done,
                    datetime.now(UTC).isoformat(timespec="seconds"),
                ),
            )

    def _name(self, target: Path) -> str:
        absolute = target.parent.resolve() / target.name
        if absolute.is_relative_to(self._folder):
            absolute = absolute.relative_to(self._folder)
        # Names that are not legal Unicode must do as well.
        return absolute.as_posix().encode("utf-8", "surrogateescape").decode("latin-1")

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._open()
                yield self._connection
            except (sqlite3.Error, OSError) as error:
                raise OutputError(
                    f"the ledger {self.path} cannot be used ({error}); mend its folder, or move "
                    "the file away to start anew"
                ) from error

    def _open(self) -> sqlite3.Connection:
        if not self._read_only and not self.path.exists():
            self._make()
        mode = "ro" if self._read_only else "rw"
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=_PATIENCE,
            check_same_thread=False,
        )
        try:
            # Power loss must not lose what was committed.
            connection.execute("PRAGMA synchronous = EXTRA")
            _check(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make(self) -> None:
        """Make the file whole, so that an empty one is never ours."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Another process may have made it meanwhile.
        with suppress(FileExistsError), replacing(self.path, overwrite=False) as temporary:
            connection = sqlite3.connect(temporary)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.executescript(_SCHEMA)
            connection.close()


def _check(connection: sqlite3.Connection) -> None:
    """Refuse a file that is another program's or version's."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if (application, version) != (_APPLICATION_ID, _VERSION):
        raise sqlite3.DatabaseError("it is not a ledger of this version of cxrsr")
