"""The ledger: which outputs are complete, so that a rerun skips them.

One SQLite file. An entry with the output's hash is written before the output is
renamed to its final name, and marked as done after. If the process ends between the
two, the hash tells the next run whether the rename took place. The ledger holds
paths and hashes, and no content of a file.

It also counts how often each file was started. The end of a file, whatever it is, takes the
count back, so what remains was being worked on when a process died. And it remembers which files
were refused, and why, so that they are not read again before they change.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cxrsr_cli.common.files import real_path, sha256_file
from cxrsr_cli.common.sqlite_file import Schema, SqliteFile
from cxrsr_cli.options import Job

LEDGER_NAME = ".cxrsr-ledger.sqlite"
"""Name in the output folder; hidden, so that the search for inputs skips it."""

_SCHEMA = Schema(
    "ledger",
    (
        (
            """
            CREATE TABLE IF NOT EXISTS outputs (
                target TEXT NOT NULL, source_sha256 TEXT NOT NULL, model_sha256 TEXT NOT NULL,
                options TEXT NOT NULL, output_sha256 TEXT NOT NULL, done INTEGER NOT NULL,
                changed TEXT NOT NULL, PRIMARY KEY (target, output_sha256)
            ) WITHOUT ROWID
            """,
        ),
        (
            """
            CREATE TABLE started (
                target TEXT PRIMARY KEY, source TEXT NOT NULL, count INTEGER NOT NULL
            ) WITHOUT ROWID
            """,
        ),
        (
            """
            CREATE TABLE refused (
                target TEXT PRIMARY KEY, source TEXT NOT NULL, judged_with TEXT NOT NULL,
                kind TEXT NOT NULL, reason TEXT NOT NULL
            ) WITHOUT ROWID
            """,
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class OutputKey:
    """What determines an output.

    Attributes
    ----------
    source_sha256, model_sha256 : str
        SHA-256 of the files.
    options : str
        The user's options. Machine and version are left out: a change of either must
        not trigger recomputation.
    """

    source_sha256: str
    model_sha256: str
    options: str

    def difference(self, other: "OutputKey") -> str:
        """Describe how `other` differs; empty if it does not."""
        if self.source_sha256 != other.source_sha256:
            return "of another source"
        if self.model_sha256 != other.model_sha256:
            return "by another model"
        return "with other options" if self.options != other.options else ""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """An output in the ledger.

    Attributes
    ----------
    key : OutputKey
        What determined it.
    output_sha256 : str
        SHA-256 of the file.
    done : bool
        Whether the file has its final name.
    """

    key: OutputKey
    output_sha256: str
    done: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a file was refused.

    Attributes
    ----------
    source : str
        The file's state, as `file_state`.
    judged_with : str
        What the decision depends on besides the file.
    kind, reason : str
        Class and message of the error.
    """

    source: str
    judged_with: str
    kind: str
    reason: str


class Ledger:
    """A ledger file; created at the first write.

    Parameters
    ----------
    path : Path
        The file. Its folder is created if it does not exist. Outputs in that folder
        are stored relative to it, so that the folder can be moved.
    read_only : bool
        Never write to the file.

    Notes
    -----
    Several threads, and several processes, may use it. If two processes write
    different files to the same target, each has its own entry, identified by the hash.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._file = SqliteFile(path, _SCHEMA, read_only=read_only)
        self._folder = real_path(path.parent)

    def check(self) -> None:
        """Raise an error if the file exists and cannot be used.

        Raises
        ------
        OutputError
            If the file is not a ledger, is of a newer version, or cannot be read.
        """
        if self._file.exists:
            with self._file.connection():
                pass

    def lookup(self, target: Path) -> LedgerEntry | None:
        """Return the entry of an output in its present state.

        Parameters
        ----------
        target : Path
            The output.

        Returns
        -------
        LedgerEntry or None
            None if the output does not exist, or its hash is not in the ledger.

        Raises
        ------
        OutputError
            If the ledger cannot be used.
        """
        if not self._file.exists:
            return None
        try:  # what is no regular file is no output
            output_sha256 = sha256_file(target)
        except OSError:
            return None
        with self._file.connection() as connection:
            row = connection.execute(
                "SELECT source_sha256, model_sha256, options, output_sha256, done"
                " FROM outputs WHERE target = ? AND output_sha256 = ?",
                (self._name(target), output_sha256),
            ).fetchone()
        return LedgerEntry(OutputKey(*row[:3]), row[3], bool(row[4])) if row else None

    def mark_pending(self, target: Path, key: OutputKey, output_sha256: str) -> None:
        """Record that an output is about to be renamed to its final name.

        Raises
        ------
        OutputError
            If the ledger cannot be written.
        """
        self._write(target, LedgerEntry(key, output_sha256, done=False))

    def mark_done(self, target: Path, key: OutputKey, output_sha256: str) -> None:
        """Record that an output has its final name.

        Raises
        ------
        OutputError
            If the ledger cannot be written.
        """
        self._write(target, LedgerEntry(key, output_sha256, done=True))

    def mark_started(self, job: Job) -> None:
        """Record that work on a file begins.

        Raises
        ------
        OutputError
            If the ledger cannot be written.
        """
        with self._file.connection() as connection, connection:
            connection.execute(
                "INSERT INTO started VALUES (?, ?, 1) ON CONFLICT (target) DO UPDATE SET"
                " count = iif(source = excluded.source, count, 0) + 1, source = excluded.source",
                (self._name(job.target), file_state(job.source)),
            )

    def unmark_started(self, jobs: Iterable[Job], *, ended: bool) -> None:
        """Take back `mark_started`, or if the work `ended`, what earlier runs marked as well.

        Raises
        ------
        OutputError
            If the ledger cannot be written.
        """
        names = [(self._name(job.target),) for job in jobs]
        with self._file.connection() as connection, connection:
            connection.executemany(
                "UPDATE started SET count = iif(?, 0, count - 1) WHERE target = ?",
                [(ended, *name) for name in names],
            )
            connection.execute("DELETE FROM started WHERE count <= 0")

    def crash_counts(self, jobs: Sequence[Job]) -> dict[Path, int]:
        """Return how often a process died while it worked on a file, by target.

        A file that changed since then is not among them.

        Raises
        ------
        OutputError
            If the ledger cannot be used.
        """
        if not self._file.exists:
            return {}
        with self._file.connection() as connection:
            rows = connection.execute("SELECT target, source, count FROM started").fetchall()
        started = {target: (source, count) for target, source, count in rows}
        counts = {}
        for job in jobs if started else ():
            source, count = started.get(self._name(job.target), ("", 0))
            if count and source == file_state(job.source):
                counts[job.target] = count
        return counts

    def mark_refused(self, target: Path, refusal: Refusal) -> None:
        """Record that a file was refused.

        Raises
        ------
        OutputError
            If the ledger cannot be written.
        """
        with self._file.connection() as connection, connection:
            connection.execute(
                "INSERT OR REPLACE INTO refused VALUES (?, ?, ?, ?, ?)",
                (self._name(target), *astuple(refusal)),
            )

    def find_refusal(self, target: Path) -> Refusal | None:
        """Return the last refusal of the file that belongs to an output.

        Raises
        ------
        OutputError
            If the ledger cannot be used.
        """
        if not self._file.exists:
            return None
        with self._file.connection() as connection:
            row = connection.execute(
                "SELECT source, judged_with, kind, reason FROM refused WHERE target = ?",
                (self._name(target),),
            ).fetchone()
        return Refusal(*row) if row else None

    def delete(self, targets: Sequence[Path]) -> None:
        """Delete the entries of outputs.

        Raises
        ------
        OutputError
            If the ledger cannot be written.
        """
        with self._file.connection() as connection, connection:
            connection.executemany(
                "DELETE FROM outputs WHERE target = ?", [(self._name(path),) for path in targets]
            )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, target: Path, entry: LedgerEntry) -> None:
        with self._file.connection() as connection, connection:
            connection.execute(
                "INSERT OR REPLACE INTO outputs VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    self._name(target),
                    entry.key.source_sha256,
                    entry.key.model_sha256,
                    entry.key.options,
                    entry.output_sha256,
                    entry.done,
                    datetime.now(UTC).isoformat(timespec="seconds"),
                ),
            )

    def _name(self, target: Path) -> str:
        absolute = real_path(target.parent) / target.name
        if absolute.is_relative_to(self._folder):
            absolute = absolute.relative_to(self._folder)
        # A path may hold bytes that are not valid UTF-8.
        return absolute.as_posix().encode("utf-8", "surrogateescape").decode("latin-1")


def file_state(path: Path) -> str:
    """Describe a file such that a change of its content shows."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
