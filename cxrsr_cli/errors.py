"""All errors that a user can see, each with its exit code.

A message says what is wrong and what to do. Messages are written to logs that leave the
hospital, so they contain no value from a patient's file, except what `attributes.quoted` allows.
"""

import traceback
from enum import IntEnum
from pathlib import Path

_PACKAGE = Path(__file__).parent


class ExitCode(IntEnum):
    """Process exit codes of the ``cxrsr`` command (documented in docs/upscale.md)."""

    OK = 0
    UNEXPECTED = 1
    """A defect of this program."""
    USAGE = 2
    """Arguments, configuration, a device or an extra that is missing."""
    NO_INPUT = 3
    SOME_FAILED = 4
    """Some files, not all."""
    ALL_FAILED = 5
    CANNOT_WRITE = 6
    MODEL = 7
    """Weights, or a training."""
    NETWORK = 8
    """The computer network: a peer or a cluster cannot be reached, refuses, or was lost."""
    VERIFICATION = 9
    INTERRUPTED = 130


class CxrsrError(Exception):
    """Base of all errors of this package; the process exits with `exit_code`."""

    exit_code = ExitCode.UNEXPECTED


class InternalError(CxrsrError):
    """A defect of this program."""

    @classmethod
    def of(cls, error: Exception) -> "InternalError":
        """Describe an error by its type and place; its text may quote patient data."""
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)]
        place = ""
        for frame in (own or frames)[-1:]:
            file = Path(frame.filename)
            name = file.relative_to(_PACKAGE) if own else file.name
            place = f" in {name}, line {frame.lineno}"
        return cls(
            f"internal error: {type(error).__name__}{place}; please report it, with "
            "CXRSR_DEBUG=1 for the traceback"
        )


class UsageError(CxrsrError):
    """An argument is invalid."""

    exit_code = ExitCode.USAGE


class ConfigError(UsageError):
    """A YAML configuration has an unknown key or an invalid value."""


class DeviceError(UsageError):
    """The requested device or precision does not exist on this machine."""


class MissingExtraError(UsageError):
    """A library of an optional extra is not installed; the message names the extra."""


class NoInputError(CxrsrError):
    """No input file was found."""

    exit_code = ExitCode.NO_INPUT


class InputError(CxrsrError):
    """One input cannot be upscaled; a batch continues with the others."""

    exit_code = ExitCode.ALL_FAILED


class UnreadableFileError(InputError):
    """The file cannot be read: no permission, not a regular file, or still being written."""


class NotDicomError(InputError):
    """The file is not DICOM, or too damaged to read."""


class NoPixelDataError(InputError):
    """The object has no pixel data."""


class UnsupportedImageError(InputError):
    """The object is a valid image of a kind that is not supported."""


class NoFittingScaleError(CxrsrError):
    """No scale makes the output that the user wants of an input; others may have one."""

    exit_code = ExitCode.ALL_FAILED


class OutOfScopeError(UnsupportedImageError):
    """The file is no chest radiograph for presentation; in a folder it is skipped."""


class UndecodablePixelDataError(InputError):
    """The pixel data are damaged, or no codec supports their transfer syntax."""


class MemoryLimitError(InputError):
    """The image needs more memory than is available."""


class WorkerCrashedError(InputError):
    """Each process that worked on the file died."""


class OutputError(CxrsrError):
    """The output cannot be written, or would replace a file that must be kept.

    Parameters
    ----------
    message : str
        Has ``{path}`` where the path belongs, if there is one.
    path : Path, optional
        The output.
    """

    exit_code = ExitCode.CANNOT_WRITE

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message, path)
        self._message, self._path = message, path

    def __str__(self) -> str:
        return self._message.replace("{path}", str(self._path)) if self._path else self._message

    def with_path(self, path: Path) -> "OutputError":
        """Return the error for the path by which another process knows the output."""
        return OutputError(self._message, self._path and path)


class TrainingError(CxrsrError):
    """Training cannot start or continue."""

    exit_code = ExitCode.MODEL


class ModelError(CxrsrError):
    """A model is unknown, damaged, or made for another scale."""

    exit_code = ExitCode.MODEL


class NetworkError(CxrsrError):
    """A peer cannot be reached, rejects us, or closes the connection."""

    exit_code = ExitCode.NETWORK


class VerificationError(CxrsrError):
    """A derived object does not match its source."""

    exit_code = ExitCode.VERIFICATION
