"""What a client asks of a worker, and what that answers."""

from dataclasses import dataclass
from datetime import datetime

from cxrsr_cli.batch.result import Result
from cxrsr_cli.cluster.file_transfer import FileTransfer
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.errors import CxrsrError
from cxrsr_cli.networks.model_files import ModelFile
from cxrsr_cli.options import UpscaleOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkRequest:
    """What a worker is to do.

    Attributes
    ----------
    model : Model
        The client's weights file; the worker takes one with the same hash.
    options : UpscaleOptions
        How it is to be run.
    parameters : DerivationParameters or None
        What the run's other workers do; None for the first that is asked.
    parcel : Parcel or None
        The file; None to say only what would be done.
    when : datetime
        Time of the derivation, of the client: a file that is done twice
        becomes the same bytes.
    dry_run : bool
        Read and judge only.
    threads : int or None
        For the network; as many as Dask gave the worker, if None.
    weights : bytes or None
        The weights file, for a worker that has none.
    """

    model: ModelFile
    options: UpscaleOptions
    parameters: DerivationParameters | None
    transfer: FileTransfer | None
    derived_at: datetime
    dry_run: bool = False
    threads: int | None = None
    weights: bytes | None = None


@dataclass(frozen=True, slots=True)
class ProfileResponse:
    """An answer: what the worker would do."""

    parameters: DerivationParameters


@dataclass(frozen=True, slots=True)
class FileResponse:
    """An answer: what became of the file.

    Attributes
    ----------
    result : Result
        Its job names the files as the worker saw them.
    content : bytes or None
        The output, if it is to be shipped.
    """

    result: Result
    content: bytes | None


@dataclass(frozen=True, slots=True)
class WeightsMissing:
    """An answer: no file with the weights' hash is here."""


@dataclass(frozen=True, slots=True)
class RequestRejected:
    """An answer: nothing can be done here, whatever the file."""

    error: CxrsrError


@dataclass(frozen=True, slots=True)
class Cancelled:
    """An answer that nobody waits for any more."""


WorkResponse = ProfileResponse | FileResponse | WeightsMissing | RequestRejected | Cancelled
