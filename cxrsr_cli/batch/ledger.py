"""The ledger: what was done, so that a rerun does only what is left.

One SQLite file. An output is announced with its hash before it gets its name
and recorded after; whatever happens between the two, the next run can tell
from the hash on which side of the rename it happened. The ledger holds paths
and hashes, nothing from inside a file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cxrsr_cli.common.files import sha256_file
from cxrsr_cli.common.sqlite_file import SqliteFile

LEDGER_NAME = ".cxrsr-ledger.sqlite"
"""In the output folder; hidden, so that a folder walk leaves it out."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outputs (
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
class OutputKey:
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

    def difference(self, other: "OutputKey") -> str:
        """Say how `other` was done otherwise; nothing if it is the same."""
        if self.source_sha256 != other.source_sha256:
            return "of another source"
        if self.model_sha256 != other.model_sha256:
            return "by another model"
        return "with other options" if self.options != other.options else ""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
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

    key: OutputKey
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
        self._file = SqliteFile(path, _SCHEMA, read_only=read_only)
        self._folder = path.parent.resolve()

    def check(self) -> None:
        """Refuse a file that is there and is no ledger.

        Raises
        ------
        OutputError
            If so, or it cannot be read.
        """
        if self._file.exists:
            with self._file.connection():
                pass

    def lookup(self, target: Path) -> LedgerEntry | None:
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
        if not self._file.exists:
            return None
        try:
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

    def mark_pending(self, target: Path, work: OutputKey, output_sha256: str) -> None:
        """Write down that an output is about to get its name.

        Raises
        ------
        OutputError
            If the ledger cannot be written.
        """
        self._write(target, LedgerEntry(work, output_sha256, done=False))

    def mark_done(self, target: Path, work: OutputKey, output_sha256: str) -> None:
        """Write down that an output has got its name.

        Raises
        ------
        OutputError
            If the ledger cannot be written.
        """
        self._write(target, LedgerEntry(work, output_sha256, done=True))

    def delete(self, targets: Sequence[Path]) -> None:
        """Know nothing of outputs any more.

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
        work = entry.key
        with self._file.connection() as connection, connection:
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
