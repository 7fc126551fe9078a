"""Copies of the files that could not be upscaled, each with its reason."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from cxrsr_cli import __version__
from cxrsr_cli.errors import CxrsrError, InputError, OutputError, UnexpectedError
from cxrsr_cli.job import Job
from cxrsr_cli.read.fingerprint import sha256_of
from cxrsr_cli.write.atomic import replacing

_REASON_SUFFIX = ".reason.json"
_SCHEMA = "cxrsr-quarantine/1"


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A folder to look through in the morning.

    Attributes
    ----------
    folder : Path
        Where copies go; made when the first does.
    outputs : Path or None
        The folder that outputs go to, which this one mirrors (`Plan.folder`).
    """

    folder: Path
    outputs: Path | None = None

    @staticmethod
    def concerns(error: CxrsrError) -> bool:
        """Tell whether an error is about the file, not about the output or the model."""
        return isinstance(error, (InputError, UnexpectedError))

    def take(self, job: Job, error: CxrsrError) -> None:
        """Copy a file, and write beside it why.

        Parameters
        ----------
        job : Job
            Its source stays where it is. The copy is named as the output would
            have been; if a file of that name is there and is another one, the
            copy's name gets a part of its hash.
        error : CxrsrError
            The reason.

        Raises
        ------
        OutputError
            If the copy cannot be made.
        """
        try:
            sha256 = sha256_of(job.source)
            copy = self.folder / self._name(job)
            if copy.exists() and sha256_of(copy) != sha256:
                copy = copy.with_name(f"{copy.stem}.{sha256[:12]}{copy.suffix}")
            copy.parent.mkdir(parents=True, exist_ok=True)
            if not copy.exists():
                with replacing(copy, overwrite=False) as temporary:
                    shutil.copyfile(job.source, temporary)
            reason = {
                "schema": _SCHEMA,
                "error": type(error).__name__,
                "reason": str(error),
                "exit_code": int(error.exit_code),
                "source_sha256": sha256,
                "software": f"cxrsr {__version__}",
            }
            with replacing(copy.with_name(copy.name + _REASON_SUFFIX)) as temporary:
                temporary.write_text(json.dumps(reason, indent=2) + "\n", encoding="utf-8")
        except OSError as failure:
            raise OutputError(f"no copy in quarantine: {failure.strerror or failure}") from failure

    def _name(self, job: Job) -> Path:
        if self.outputs is None:
            return Path(job.source.name)
        return job.target.relative_to(self.outputs)
