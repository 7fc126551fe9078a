"""The folder of results: one log of JSON lines, and a few files of bounded size.

Every record is on the disk before the next measurement begins. A file that is larger than the
limit is written in parts. The record that lists the parts comes after them, and the parts of the
version before are removed after the record. So a kill at any time leaves a complete version.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrsr_cli.common.files import atomic_write, sha256_file
from cxrsr_cli.errors import ConfigError, InputError

LOG_NAME = "day.jsonl"

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Results:
    """A folder of results.

    Attributes
    ----------
    folder : Path
        The folder, which is made when it is needed.
    max_file_bytes : int
        Largest size of a file.
    max_files : int
        Largest number of files.
    """

    folder: Path
    max_file_bytes: int = 16 << 20
    max_files: int = 8

    def add(self, stage: str, **values: object) -> None:
        """Append a record to the log, and flush it to the disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"stage": stage, **values}).encode()
        path = self.folder / LOG_NAME
        with path.open("a+b") as file:
            # A kill may have cut the last line. The next record must not be joined to it.
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read() == b"\n" else b"\n" + line
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def records(self, stage: str = "", **values: object) -> list[Record]:
        """Return the records of a stage, or of all, that have these values."""
        path = self.folder / LOG_NAME
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [
            record
            for record in _parse(lines)
            if (not stage or record["stage"] == stage)
            and all(record.get(key) == value for key, value in values.items())
        ]

    def count_parts(self, size: int) -> int:
        """Return the number of files that a file of `size` bytes takes."""
        return max(1, -(-size // self.max_file_bytes))

    def check_room(self, sizes: list[int]) -> None:
        """Check that files of these sizes fit beside the log, and one of them twice.

        While a file is published, the version before is still there.

        Raises
        ------
        ConfigError
            If they are more than `max_files`.
        """
        counts = [self.count_parts(size) for size in sizes]
        needed = 1 + sum(counts) + max(counts, default=0)
        if needed > self.max_files:
            raise ConfigError(
                f"the results would be {needed} files, and {self.max_files} is the limit; "
                "train fewer networks at a time, or raise --max-files or --max-file-size"
            )

    def publish(self, stage: str, file_name: str, path: Path, **values: object) -> None:
        """Write a file into the folder in parts, add its record, and remove the version before."""
        # Parts without a record are from a kill, and count too.
        version = 1 + max((number for _, number in self._parts(file_name)), default=0)
        self.folder.mkdir(parents=True, exist_ok=True)
        parts, count = dict[str, str](), self.count_parts(path.stat().st_size)
        with path.open("rb") as file:
            for index in range(count):
                part = f"{file_name}.{version}-{index + 1}of{count}"
                content = file.read(self.max_file_bytes)
                with atomic_write(self.folder / part) as temporary:
                    temporary.write_bytes(content)
                parts[part] = hashlib.sha256(content).hexdigest()
        self.add(stage, file=file_name, version=version, parts=parts, **values)
        self.remove(file_name, before=version)

    def remove(self, name: str, *, before: int | None = None) -> None:
        """Remove the parts of a file, of all versions or of those before one."""
        for path, version in self._parts(name):
            if before is None or version < before:
                path.unlink()

    def _parts(self, name: str) -> list[tuple[Path, int]]:
        pattern = re.compile(rf"{re.escape(name)}\.(\d+)-\d+of\d+")
        matches = [(path, pattern.fullmatch(path.name)) for path in self.folder.glob(f"{name}.*")]
        return [(path, int(match[1])) for path, match in matches if match]

    def restore(self, name: str, target: Path) -> bool:
        """Join the newest complete version of a file; return whether there is one.

        Raises
        ------
        InputError
            If there are versions, but none is complete.
        """
        records = self.records(file=name)
        for record in reversed(records):
            parts = {self.folder / part: digest for part, digest in record["parts"].items()}
            if all(path.is_file() and sha256_file(path) == parts[path] for path in parts):
                target.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(target) as temporary, temporary.open("wb") as file:
                    for path in parts:
                        file.write(path.read_bytes())
                return True
        if records:
            raise InputError(f"{self.folder}: no complete version of {name} is left")
        return False


def _parse(lines: list[str]) -> Iterator[Record]:
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # cut by a kill
            continue
