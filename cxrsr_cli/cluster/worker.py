"""What a worker does with a request."""

import threading
from dataclasses import replace
from pathlib import Path

import torch
from distributed import get_worker

from cxrsr_cli.batch.result import FileStatus, Result, Timing, failed_result, to_reportable_error
from cxrsr_cli.batch.runner import JobStages
from cxrsr_cli.cluster.file_transfer import FileTransfer, remove_staged
from cxrsr_cli.cluster.messages import FileResponse, WorkRequest, WorkResponse
from cxrsr_cli.common.files import sha256_file
from cxrsr_cli.common.process import disable_malloc_trim, peak_rss_bytes
from cxrsr_cli.errors import ModelError, UsageError
from cxrsr_cli.networks.model_files import SUFFIX
from cxrsr_cli.options import Job, UpscaleOptions
from cxrsr_cli.upscaler import Upscaler

_MAX_CACHED_MODELS = 2
"""Models that a process keeps; one more in use would be loaded again and again."""
_MAX_CONCURRENT_FILES = 3
"""Files in a process: one is read, one is in the network, one is written."""

# Dask's resources could limit both, but only on workers that were started with them.
_network = threading.Lock()
_files = threading.BoundedSemaphore(_MAX_CONCURRENT_FILES)

# The loaded models. The weights come as the result of a Dask task (`connect`); a model as such a
# result would be pickled, to be sent to another worker.
_loaded: dict[tuple[str, UpscaleOptions], Upscaler] = {}
_loading = threading.Lock()


class _TaskCancelledError(BaseException):
    """The task was cancelled. Not an `Exception`: no handler of a file's errors may catch it."""


def handle_request(request: WorkRequest, weights: bytes) -> WorkResponse:
    """Do what a request says, in a thread of a Dask worker.

    Raises nothing: Dask would log it.
    """
    try:
        upscaler = _load_upscaler(request, weights)
        required, actual = request.parameters, upscaler.parameters
        if required and required.fingerprint() != actual.fingerprint():
            return UsageError(
                "the workers do not all compute alike: their version of cxrsr, kind of device or "
                "precision differs; give --device and --precision, and install one version"
            )
        if request.transfer is None:
            return actual
        with _files:
            return _upscale_file(request, request.transfer, upscaler)
    except _TaskCancelledError:
        if request.transfer:
            remove_staged(request.transfer.staged)  # the client may be gone
        return None
    except Exception as error:
        return to_reportable_error(error)


def _load_upscaler(request: WorkRequest, weights: bytes) -> Upscaler:
    """Load a model, unless this process has it."""
    # The client decides if an output may be replaced. Here Dask may run a task a second time.
    options = replace(request.options, overwrite=True)
    key = request.model.sha256, options
    with _loading:
        upscaler = _loaded.pop(key, None)
        if upscaler is None:
            path = _scratch() / f"{request.model.sha256}{SUFFIX}"
            path.write_bytes(weights)
            if sha256_file(path) != request.model.sha256:
                raise ModelError("the weights were damaged on the way to a worker")
            disable_malloc_trim()
            upscaler = Upscaler.load(replace(request.model, path=path), options)
        _loaded[key] = upscaler  # the last one is the most recently used
        while len(_loaded) > _MAX_CACHED_MODELS:
            del _loaded[next(iter(_loaded))]
    return replace(upscaler, clock=lambda: request.derived_at)


def _upscale_file(request: WorkRequest, transfer: FileTransfer, upscaler: Upscaler) -> FileResponse:
    content = None
    try:
        with transfer.unpack_on_worker(_scratch()) as job:
            result = _run_stages(request, job, JobStages(upscaler))
            if result.status is FileStatus.DONE and transfer.staged is None:
                content = job.target.read_bytes()
    except Exception as error:
        result = failed_result(Job(Path(), Path()), error, Timing())
    _raise_if_cancelled()
    return FileResponse(replace(result, peak_rss_bytes=peak_rss_bytes()), content)


def _run_stages(request: WorkRequest, job: Job, stages: JobStages) -> Result:
    read = stages.read(job)
    if isinstance(read, Result):
        return read
    if request.dry_run:
        return stages.dry_run_result(read)
    with _network:
        _raise_if_cancelled()
        torch.set_num_threads(request.threads or get_worker().state.nthreads)
        upscaled = stages.upscale(read, _raise_if_cancelled)
    return upscaled if isinstance(upscaled, Result) else stages.write(upscaled, _raise_if_cancelled)


def _raise_if_cancelled(_: object = None) -> None:
    """Stop if the client cancelled the task or died.

    Dask forgets such a task, but does not interrupt its thread.
    """
    worker = get_worker()
    task = worker.state.tasks.get(worker.get_current_task())
    if task is None or task.state != "executing":
        raise _TaskCancelledError


def _scratch() -> Path:
    """Return the worker's folder.

    After a kill, Dask removes it when a worker starts at the same place, and the next run that of
    a local one (`connect`).
    """
    return Path(get_worker().local_directory)
