"""Copies of files that could not be upscaled, each with its reason."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrsr_cli import __version__
from cxrsr_cli.common.files import (
    atomic_write,
    make_folder,
    open_regular,
    permissions_of,
    remove_stale_temporaries,
    sha256_file,
)
from cxrsr_cli.errors import (
    CxrsrError,
    InputError,
    InternalError,
    MemoryLimitError,
    OutputError,
    UnreadableFileError,
)
from cxrsr_cli.options import Job

_REASON_SUFFIX = ".reason.json"
_SCHEMA = "cxrsr-quarantine/1"
_MAX_NAME_LENGTH = 255
"""Bytes of a file name on all usual file systems."""
_MAX_REASON_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A folder for copies of bad inputs.

    Attributes
    ----------
    folder : Path
        Holds the copies; made for the first one.
    outputs : Path or None
        The folder of the outputs, which this one mirrors (`BatchPlan.output_folder`).
    """

    folder: Path
    outputs: Path | None = None

    @staticmethod
    def should_quarantine(error: CxrsrError) -> bool:
        """Return whether an error is about the file itself.

        Errors about the output, the model, the memory of this machine, or a file that is
        still being written are not.
        """
        temporary = isinstance(error, (UnreadableFileError, MemoryLimitError))
        return isinstance(error, (InputError, InternalError)) and not temporary

    def remove_stale_temporaries(self, jobs: Sequence[Job]) -> None:
        """Remove temporary files of killed runs from the folders of these jobs' copies."""
        for folder in {(self.folder / self._name(job)).parent for job in jobs}:
            remove_stale_temporaries(folder)

    def add(self, job: Job, error: CxrsrError) -> None:
        """Copy a file, and write the reason beside the copy.

        Parameters
        ----------
        job : Job
            The source stays in its place. The copy gets the name of the output; if
            another file has that name, a part of the copy's hash is added. It is not more
            readable than the source. Of a link no copy is made: it may lead anywhere.
        error : CxrsrError
            The reason.

        Raises
        ------
        OutputError
            If the copy cannot be made.
        """
        try:
            if job.source.is_symlink():
                raise OutputError("no copy in quarantine: the input is a link")
            sha256 = sha256_file(job.source)
            copy = self.folder / self._name(job)
            if copy.exists() and sha256_file(copy) != sha256:
                copy = copy.with_name(f"{copy.stem}.{sha256[:12]}{copy.suffix}")
            make_folder(copy.parent)
            reason = {
                "schema": _SCHEMA,
                "error": type(error).__name__,
                "reason": str(error),
                "exit_code": int(error.exit_code),
                "source_sha256": sha256,
                "software": f"cxrsr {__version__}",
            }
            _write_reason(copy, reason, sha256)
            if not copy.exists():
                with (
                    open_regular(job.source, follow_link=False) as source,
                    atomic_write(
                        copy, overwrite=False, permissions=permissions_of(job.source)
                    ) as temporary,
                    temporary.open("wb") as file,
                ):
                    shutil.copyfileobj(source, file)
        except OSError as failure:
            raise OutputError(f"no copy in quarantine: {failure.strerror or failure}") from failure

    def _name(self, job: Job) -> Path:
        if self.outputs is None:
            return Path(job.source.name)
        return job.target.relative_to(self.outputs)


def _write_reason(copy: Path, reason: dict[str, Any], sha256: str) -> None:
    """Write the reason beside the copy; replace only an earlier reason of the same file."""
    name = copy.name + _REASON_SUFFIX
    path = copy.with_name(name)
    if len(os.fsencode(name)) > _MAX_NAME_LENGTH or (
        path.exists() and not _is_reason(path, sha256)
    ):
        path = copy.with_name(f"{sha256[:32]}{_REASON_SUFFIX}")
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(reason, indent=2) + "\n", encoding="utf-8")


def _is_reason(path: Path, sha256: str) -> bool:
    with open_regular(path) as file:
        start = file.read(_MAX_REASON_LENGTH)
    return _SCHEMA.encode() in start and sha256.encode() in start
