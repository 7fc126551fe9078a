"""What a client asks a worker to do, and what the worker responds."""

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
    """A file to upscale, or the question how a worker would upscale.

    Attributes
    ----------
    model, options
        As `Upscaler.load` takes them; the weights file is the client's.
    derived_at : datetime
        Time of derivation. The client sets it, so that a file that is upscaled twice gets the
        same bytes.
    parameters : DerivationParameters or None
        What the worker must compute with; None for the first worker, which decides it.
    transfer : FileTransfer or None
        The file; None to ask for the `DerivationParameters`.
    dry_run : bool
        Whether to read and check only.
    threads : int or None
        Threads of the network; None takes as many as Dask gave the worker.
    """

    model: ModelFile
    options: UpscaleOptions
    derived_at: datetime
    parameters: DerivationParameters | None = None
    transfer: FileTransfer | None = None
    dry_run: bool = False
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class FileResponse:
    """The result of a file.

    Attributes
    ----------
    result : Result
        Its job has the worker's paths.
    content : bytes or None
        The output, if it is returned as bytes.
    """

    result: Result
    content: bytes | None


WorkResponse = DerivationParameters | FileResponse | CxrsrError | None
"""An error ends the run: it does not depend on the file. None: the task was cancelled."""
