"""A SQLite file with versioned tables; the ledger and the queue share one."""

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cxrsr_cli.common.files import atomic_write
from cxrsr_cli.errors import OutputError

_LOG = logging.getLogger(__name__)

_APPLICATION_ID = 0x63787273
_FILE_VERSION = 2
"""Version of the file's layout. Version 1 had no table of schema versions."""
_FILE = "file"
_VERSIONS = "CREATE TABLE IF NOT EXISTS schema_versions (name TEXT PRIMARY KEY, version INTEGER)"
_LOCK_TIMEOUT_SECONDS = 60.0
"""Seconds to wait for another process, or thread, that writes to the file."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of one user of the file.

    Attributes
    ----------
    name : str
        Names the tables' version in the file.
    migrations : tuple of tuple of str
        SQL statements; item n takes the tables from version n to version n + 1. The
        first creates them, and must accept tables that exist: files of version 1
        have them without a version.
    """

    name: str
    migrations: tuple[tuple[str, ...], ...]

    @property
    def version(self) -> int:
        """Version that this program reads and writes."""
        return len(self.migrations)


class SqliteFile:
    """A file that is created at the first write and upgraded when it is opened.

    Parameters
    ----------
    path : Path
        The file. Its folder is created if it does not exist.
    schema : Schema
        The tables to use. Older ones are migrated, newer ones refused.
    read_only : bool
        Never write to the file. Older tables are migrated in a copy in memory.

    Notes
    -----
    Several threads, and several processes, may use the same file.
    """

    def __init__(self, path: Path, schema: Schema, *, read_only: bool = False) -> None:
        self.path = path
        self._schema = schema
        self._read_only = read_only
        # Reentrant: an interrupted main thread may hold the lock, and must still close the file.
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    @property
    def exists(self) -> bool:
        """Whether the file exists."""
        return self._connection is not None or self.path.exists()

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to one thread at a time.

        Yields
        ------
        sqlite3.Connection
            What is committed on it is flushed to the disk.

        Raises
        ------
        OutputError
            If the file is not of cxrsr, is of a newer version, or cannot be read or written.
        """
        # The holder may wait for another process; other threads must not wait without end.
        if not self._lock.acquire(timeout=_LOCK_TIMEOUT_SECONDS):
            raise OutputError(f"the ledger {self.path} is locked for too long")
        try:
            if self._connection is None:
                self._connection = self._open()
            yield self._connection
        except (sqlite3.Error, OSError) as error:
            raise OutputError(
                f"the ledger {self.path} cannot be used ({error}); repair its folder, or move "
                "the file away to start a new one"
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
            self._create()
        mode = "ro" if self._read_only else "rw"
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=_LOCK_TIMEOUT_SECONDS,
            check_same_thread=False,
        )
        try:
            # A power cut must not lose a committed transaction.
            connection.execute("PRAGMA synchronous = EXTRA")
            self._check(connection)
            if self._needs_migration(connection):
                _LOG.info("the ledger %s is of an older version and is migrated", self.path)
                if self._read_only:
                    connection = _copy_to_memory(connection)
                self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _create(self) -> None:
        """Create the file under a temporary name, so that no other process sees it empty."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Another process may have created it in the meantime.
        with suppress(FileExistsError), atomic_write(self.path, overwrite=False) as temporary:
            connection = sqlite3.connect(temporary)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            self._migrate(connection)
            connection.close()

    def _check(self, connection: sqlite3.Connection) -> None:
        """Refuse a file of another program, or of a newer version of this one."""
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if application != _APPLICATION_ID:
            raise sqlite3.DatabaseError("it is not a ledger of cxrsr")
        found = _versions(connection)
        for name, known in {_FILE: _FILE_VERSION, self._schema.name: self._schema.version}.items():
            if found.get(name, 0) > known:
                raise OutputError(
                    f"the ledger {self.path} was written by a newer version of cxrsr: its {name} "
                    f"has version {found[name]}, and this cxrsr understands {known} at most; "
                    "upgrade cxrsr, or move the file away to start a new one"
                )

    def _needs_migration(self, connection: sqlite3.Connection) -> bool:
        return _versions(connection).get(self._schema.name, 0) < self._schema.version

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """Take the tables to today's version, one version in each transaction."""
        while self._needs_migration(connection):
            # Locks out other processes, one of which may have migrated in the meantime.
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                version = _versions(connection).get(self._schema.name, 0)
                if version >= self._schema.version:
                    return
                for statement in (_VERSIONS, *self._schema.migrations[version]):
                    connection.execute(statement)
                connection.execute(
                    "INSERT OR REPLACE INTO schema_versions VALUES (?, ?)",
                    (self._schema.name, version + 1),
                )
                connection.execute(f"PRAGMA user_version = {_FILE_VERSION}")


def _versions(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the version of the file, and of the tables of each schema in it."""
    (file_version,) = connection.execute("PRAGMA user_version").fetchone()
    found = {_FILE: file_version}
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_versions'").fetchone():
        found |= dict(connection.execute("SELECT name, version FROM schema_versions").fetchall())
    return found


def _copy_to_memory(connection: sqlite3.Connection) -> sqlite3.Connection:
    copy = sqlite3.connect(":memory:", check_same_thread=False)
    connection.backup(copy)
    connection.close()
    return copy
