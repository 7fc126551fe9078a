"""What a worker process does with an errand: it keeps models, and makes no name."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from distributed import get_worker

from cxrsr_cli.batch.failure import as_failure
from cxrsr_cli.batch.memory import peak_memory
from cxrsr_cli.batch.result import Result, Status, Timing, failed
from cxrsr_cli.batch.stages import Stages
from cxrsr_cli.cluster.allocator import keep_freed_memory
from cxrsr_cli.cluster.errand import (
    Answer,
    Errand,
    Introduced,
    Refused,
    Unwanted,
    WeightsWanted,
    Worked,
)
from cxrsr_cli.cluster.parcel import Parcel
from cxrsr_cli.errors import UsageError
from cxrsr_cli.job import Job
from cxrsr_cli.read.fingerprint import sha256_of
from cxrsr_cli.restore.registry import Model, shipped_models
from cxrsr_cli.restore.weights import SUFFIX
from cxrsr_cli.settings import Settings
from cxrsr_cli.upscale import Upscaler

_KEPT = 2
"""Models that a process keeps; runs with more kinds of errands at once load again and again."""
_BESIDE = 3
"""Files at work in a process: one is read, one is in the network, one is written."""

_loaded: OrderedDict[tuple[str, Settings], Upscaler] = OrderedDict()
_loading = threading.Lock()
_network = threading.Lock()
_files = threading.BoundedSemaphore(_BESIDE)


class _NobodyWaitsError(BaseException):
    """The errand was cancelled; no kind of failure, so nothing may catch it."""


def answer(errand: Errand) -> Answer:
    """Do an errand, in a thread of a Dask worker.

    Nothing is raised: Dask would log it.
    """
    try:
        upscaler = _upscaler(errand)
        if upscaler is None:
            return WeightsWanted()
        if errand.recipe and upscaler.recipe != errand.recipe:
            return Refused(
                UsageError(
                    "the workers do not all compute alike: version of cxrsr, kind of device or "
                    "precision differ; choose --device and --precision, install one version"
                )
            )
        if errand.parcel is None:
            return Introduced(upscaler.profile)
        with _files:
            return _worked(errand, errand.parcel, upscaler)
    except _NobodyWaitsError:
        return Unwanted()
    except Exception as error:
        return Refused(as_failure(error))


def _upscaler(errand: Errand) -> Upscaler | None:
    """Find a model in memory, else on the disk; None if it is not there."""
    key = errand.model.sha256, errand.settings
    with _loading:
        upscaler = _loaded.get(key)
        if upscaler is None:
            model = _model(errand)
            if model is None:
                return None
            keep_freed_memory()
            # Only the client knows whether an output may be replaced.
            upscaler = errand.settings.load(model, overwrite=True)
            _loaded[key] = upscaler
        _loaded.move_to_end(key)
        while len(_loaded) > _KEPT:
            _loaded.popitem(last=False)
    return replace(upscaler, clock=lambda: errand.when)


def _model(errand: Errand) -> Model | None:
    model = errand.model
    if errand.weights is not None:
        path = _scratch() / f"{model.sha256}{SUFFIX}"
        path.write_bytes(errand.weights)
        return replace(model, path=path) if _is(path, model) else None
    if _is(model.path, model):
        return model
    return next((other for other in shipped_models() if other.sha256 == model.sha256), None)


def _is(path: Path, model: Model) -> bool:
    try:
        return sha256_of(path) == model.sha256
    except OSError:
        return False


def _worked(errand: Errand, parcel: Parcel, upscaler: Upscaler) -> Worked:
    try:
        with parcel.laid_out(_scratch()) as job:
            result = _result(errand, job, Stages(upscaler))
            with _undone_if_unwanted(parcel):
                content = parcel.content(job) if result.status is Status.DONE else None
    except Exception as error:
        result, content = failed(Job(Path(), Path()), error, Timing()), None
    return Worked(replace(result, peak_memory=peak_memory()), content)


def _result(errand: Errand, job: Job, stages: Stages) -> Result:
    read = stages.read(job)
    if isinstance(read, Result):
        return read
    if errand.dry_run:
        return stages.planned(read)
    with _network:
        _still_wanted()
        torch.set_num_threads(errand.threads or get_worker().state.nthreads)
        made = stages.restore(read, lambda _: _still_wanted())
    if isinstance(made, Result):
        return made
    return stages.write(made, lambda _: _still_wanted())


@contextmanager
def _undone_if_unwanted(parcel: Parcel) -> Iterator[None]:
    """Remove what was written if the client went away meanwhile."""
    try:
        yield
        _still_wanted()
    except _NobodyWaitsError:
        parcel.discard()
        raise


def _still_wanted() -> None:
    """Stop if the task was cancelled; also if its client has died."""
    worker = get_worker()
    task = worker.state.tasks.get(worker.get_current_task())
    if task is None or task.state != "executing":
        raise _NobodyWaitsError


def _scratch() -> Path:
    """Return a folder of the worker's, which Dask removes even after a kill."""
    return Path(get_worker().local_directory)
