"""What a worker process does with an errand: it keeps models, and makes no name."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from distributed import get_worker

from cxrsr_cli.batch.result import FileStatus, Result, Timing, failed_result, to_reportable_error
from cxrsr_cli.batch.runner import JobStages
from cxrsr_cli.cluster.file_transfer import FileTransfer
from cxrsr_cli.cluster.messages import (
    Cancelled,
    FileResponse,
    ProfileResponse,
    RequestRejected,
    WeightsMissing,
    WorkRequest,
    WorkResponse,
)
from cxrsr_cli.common.files import sha256_file
from cxrsr_cli.common.process import disable_malloc_trim, peak_rss_bytes
from cxrsr_cli.errors import UsageError
from cxrsr_cli.networks.model_files import SUFFIX, ModelFile, bundled_models
from cxrsr_cli.options import Job, UpscaleOptions
from cxrsr_cli.upscaler import Upscaler

_MAX_CACHED_MODELS = 2
"""Models that a process keeps; runs with more kinds of errands at once load again and again."""
_MAX_CONCURRENT_FILES = 3
"""Files at work in a process: one is read, one is in the network, one is written."""

_loaded: OrderedDict[tuple[str, UpscaleOptions], Upscaler] = OrderedDict()
_loading = threading.Lock()
_network = threading.Lock()
_files = threading.BoundedSemaphore(_MAX_CONCURRENT_FILES)


class _TaskCancelledError(BaseException):
    """The errand was cancelled; no kind of failure, so nothing may catch it."""


def handle_request(errand: WorkRequest) -> WorkResponse:
    """Do an errand, in a thread of a Dask worker.

    Nothing is raised: Dask would log it.
    """
    try:
        upscaler = _upscaler(errand)
        if upscaler is None:
            return WeightsMissing()
        theirs = errand.parameters
        if theirs and upscaler.parameters.fingerprint() != theirs.fingerprint():
            return RequestRejected(
                UsageError(
                    "the workers do not all compute alike: version of cxrsr, kind of device or "
                    "precision differ; choose --device and --precision, install one version"
                )
            )
        if errand.transfer is None:
            return ProfileResponse(upscaler.parameters)
        with _files:
            return _worked(errand, errand.transfer, upscaler)
    except _TaskCancelledError:
        return Cancelled()
    except Exception as error:
        return RequestRejected(to_reportable_error(error))


def _upscaler(errand: WorkRequest) -> Upscaler | None:
    """Find a model in memory, else on the disk; None if it is not there."""
    # Only the client knows whether an output may be replaced.
    options = replace(errand.options, overwrite=True)
    key = errand.model.sha256, options
    with _loading:
        upscaler = _loaded.get(key)
        if upscaler is None:
            model = _model(errand)
            if model is None:
                return None
            disable_malloc_trim()
            upscaler = Upscaler.load(model, options)
            _loaded[key] = upscaler
        _loaded.move_to_end(key)
        while len(_loaded) > _MAX_CACHED_MODELS:
            _loaded.popitem(last=False)
    return replace(upscaler, clock=lambda: errand.derived_at)


def _model(errand: WorkRequest) -> ModelFile | None:
    model = errand.model
    if errand.weights is not None:
        path = _scratch() / f"{model.sha256}{SUFFIX}"
        path.write_bytes(errand.weights)
        return replace(model, path=path) if _is(path, model) else None
    if _is(model.path, model):
        return model
    return next((other for other in bundled_models() if other.sha256 == model.sha256), None)


def _is(path: Path, model: ModelFile) -> bool:
    try:
        return sha256_file(path) == model.sha256
    except OSError:
        return False


def _worked(errand: WorkRequest, parcel: FileTransfer, upscaler: Upscaler) -> FileResponse:
    try:
        with parcel.unpack_on_worker(_scratch()) as job:
            result = _result(errand, job, JobStages(upscaler))
            with _cleanup_if_cancelled(parcel):
                content = parcel.content(job) if result.status is FileStatus.DONE else None
    except Exception as error:
        result, content = failed_result(Job(Path(), Path()), error, Timing()), None
    return FileResponse(replace(result, peak_rss_bytes=peak_rss_bytes()), content)


def _result(errand: WorkRequest, job: Job, stages: JobStages) -> Result:
    read = stages.read(job)
    if isinstance(read, Result):
        return read
    if errand.dry_run:
        return stages.dry_run_result(read)
    with _network:
        _raise_if_cancelled()
        torch.set_num_threads(errand.threads or get_worker().state.nthreads)
        made = stages.upscale(read, lambda _: _raise_if_cancelled())
    if isinstance(made, Result):
        return made
    return stages.write(made, lambda _: _raise_if_cancelled())


@contextmanager
def _cleanup_if_cancelled(parcel: FileTransfer) -> Iterator[None]:
    """Remove what was written if the client went away meanwhile."""
    try:
        yield
        _raise_if_cancelled()
    except _TaskCancelledError:
        parcel.discard()
        raise


def _raise_if_cancelled() -> None:
    """Stop if the task was cancelled; also if its client has died."""
    worker = get_worker()
    task = worker.state.tasks.get(worker.get_current_task())
    if task is None or task.state != "executing":
        raise _TaskCancelledError


def _scratch() -> Path:
    """Return a folder of the worker's, which Dask removes even after a kill."""
    return Path(get_worker().local_directory)
