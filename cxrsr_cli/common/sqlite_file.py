"""The SQLite file that ledger and queue share: made whole, flushed, and known as ours."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cxrsr_cli.common.files import atomic_write
from cxrsr_cli.errors import OutputError

_APPLICATION_ID = 0x63787273
_VERSION = 1
_LOCK_TIMEOUT_SECONDS = 60.0
"""Seconds to wait for another process, or thread, that writes to the file."""


class SqliteFile:
    """A file that is made when it is first written to.

    Parameters
    ----------
    path : Path
        The file; its folder is made if need be.
    schema : str
        SQL that makes what is missing of its tables, and changes nothing that is there.
    read_only : bool
        Never write to it.

    Notes
    -----
    May be used from several threads, and by several processes at once.
    """

    def __init__(self, path: Path, schema: str, *, read_only: bool = False) -> None:
        self.path = path
        self._schema = schema
        self._read_only = read_only
        # The main thread can be interrupted with it in hand, and must be able to close the file.
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    @property
    def exists(self) -> bool:
        """Whether there is something to read."""
        return self._connection is not None or self.path.exists()

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection to one thread at a time.

        Yields
        ------
        sqlite3.Connection
            What is committed on it is on the disk.

        Raises
        ------
        OutputError
            If the file is no ledger, or cannot be read or written.
        """
        # Whoever holds it may wait for another process; those behind it do not wait for ever.
        if not self._lock.acquire(timeout=_LOCK_TIMEOUT_SECONDS):
            raise OutputError(f"the ledger {self.path} is busy for too long")
        try:
            if self._connection is None:
                self._connection = self._open()
            yield self._connection
        except (sqlite3.Error, OSError) as error:
            raise OutputError(
                f"the ledger {self.path} cannot be used ({error}); mend its folder, or move "
                "the file away to start anew"
            ) from error
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection:
                self._connection.close()
                self._connection = None

    def _open(self) -> sqlite3.Connection:
        if not self._read_only and not self.path.exists():
            self._make()
        mode = "ro" if self._read_only else "rw"
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=_LOCK_TIMEOUT_SECONDS,
            check_same_thread=False,
        )
        try:
            # Power loss must not lose what was committed.
            connection.execute("PRAGMA synchronous = EXTRA")
            _check(connection)
            if not self._read_only:
                connection.executescript(self._schema)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make(self) -> None:
        """Make the file whole, so that an empty one is never ours."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Another process may have made it meanwhile.
        with suppress(FileExistsError), atomic_write(self.path, overwrite=False) as temporary:
            connection = sqlite3.connect(temporary)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.executescript(self._schema)
            connection.close()


def _check(connection: sqlite3.Connection) -> None:
    """Refuse a file that is another program's or version's."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if (application, version) != (_APPLICATION_ID, _VERSION):
        raise sqlite3.DatabaseError("it is not a ledger of this version of cxrsr")
