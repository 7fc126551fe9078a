"""Requests and responses: what ends a run, and that no file's content is kept meanwhile."""

import gc
import hashlib
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from cxrsr_cli.batch.records import RunRecords
from cxrsr_cli.batch.result import FileStatus
from cxrsr_cli.cluster import connect, executor
from cxrsr_cli.cluster.address import ClusterAddress
from cxrsr_cli.cluster.dispatcher import Dispatcher
from cxrsr_cli.cluster.envelope import VersionedPickle
from cxrsr_cli.cluster.executor import _JobRunner
from cxrsr_cli.cluster.file_transfer import FileTransfer, TransferMode
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.errors import NetworkError, UsageError
from cxrsr_cli.upscaler import Upscaler
from tests.cluster.test_executor import outputs
from tests.conftest import COUNT, small_chest
from tests.helpers.batches import jobs, statuses
from tests.helpers.clusters import (
    Cluster,
    FakeClient,
    cluster,
    fake_executor,
    killed_worker,
    raise_os_error,
    run_on_cluster,
)
from tests.helpers.waiting import wait_until


def fake_runner(
    client: FakeClient, upscaler: Upscaler, io_workers: int
) -> tuple[_JobRunner, Dispatcher]:
    cluster_executor = fake_executor(client, upscaler, io_workers)
    dispatcher = Dispatcher(cluster_executor.client, cluster_executor.weights)
    return _JobRunner(
        cluster_executor, RunRecords(cluster_executor.parameters), dispatcher
    ), dispatcher


def kept_contents() -> list[object]:
    """Return the files' contents that this process keeps, packed or not."""
    return [
        each
        for each in gc.get_objects()
        if (type(each) is FileTransfer and each.source) or type(each) is VersionedPickle
    ]


def test_no_content_is_kept_while_workers_have_the_files(inputs: Path, upscaler: Upscaler) -> None:
    """What is sent again after a worker's death is read again."""
    # Dask keeps the request for the weights of an earlier run in this process.
    of_earlier_runs = kept_contents()

    def is_nothing_kept() -> bool:
        return len(kept_contents()) == len(of_earlier_runs)

    client = FakeClient()
    runner, dispatcher = fake_runner(client, upscaler, io_workers=2)
    with ThreadPoolExecutor(COUNT) as pool:
        try:
            results = [pool.submit(runner.run, job) for job in jobs(inputs)]
            wait_until(lambda: len(client.futures) == COUNT, "all files are sent")
            wait_until(is_nothing_kept, "no content is kept")
            for index in range(COUNT):
                small_chest(10 + index).save_as(inputs / f"{index}.dcm")
            for future in client.futures:
                future.set_exception(killed_worker())
            assert {type(result.exception(10)) for result in results} == {type(killed_worker())}
            client.futures.clear()
            results = [pool.submit(runner.run, job) for job in jobs(inputs)]
            wait_until(lambda: len(client.futures) == COUNT, "all files are sent again")
            wait_until(is_nothing_kept, "no content is kept")
        finally:
            dispatcher.cancel()
        assert [result.result(10) for result in results] == [None] * COUNT
    read = {hashlib.sha256(path.read_bytes()).digest() for path in inputs.iterdir()}
    assert set(client.sources[COUNT:]) == read
    assert len(client.sources) == 2 * COUNT


def test_nothing_is_read_after_the_end_of_the_run(
    inputs: Path, upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends while a file waits for its turn to be read."""
    client = FakeClient()
    runner, dispatcher = fake_runner(client, upscaler, io_workers=1)
    monkeypatch.setattr(RunRecords, "find_completed", lambda *_: pytest.fail("looked up"))
    monkeypatch.setattr(FileTransfer, "prepare", lambda *_: pytest.fail("read"))
    with ThreadPoolExecutor(1) as pool:
        with runner._reading:
            result = pool.submit(runner.run, jobs(inputs)[0])
            dispatcher.cancel()
        assert result.result(10) is None
    assert not client.futures


def test_a_task_that_is_sent_while_the_run_ends_is_not_waited_for(
    inputs: Path, upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = FakeClient()
    runner, dispatcher = fake_runner(client, upscaler, io_workers=1)
    submit = client.submit

    def cancel_and_submit(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        dispatcher.cancel()
        return submit(*arguments, **options)

    monkeypatch.setattr(client, "submit", cancel_and_submit)
    assert runner.run(jobs(inputs)[0]) is None
    assert len(client.futures) == 1


def test_weights_whose_task_died_with_a_worker_are_requested_again(upscaler: Upscaler) -> None:
    """Another run's file may kill the worker just then."""
    client, weights = FakeClient(), MagicMock(status="error")
    request = fake_executor(client, upscaler).request
    Dispatcher(client, weights).submit(request)  # type: ignore[arg-type]
    weights.retry.assert_called_once_with()
    assert len(client.futures) == 1


@pytest.mark.peer
def test_dask_keeps_no_content_either(
    two_workers: Cluster, inputs: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default its log of messages would."""
    for path in inputs.iterdir():
        small_chest(int(path.stem), ImageComments="MARKED").save_as(path)
    save, seen, found = _JobRunner._save, list[int](), list[object]()

    def look_and_save(*arguments: Any) -> Any:  # noqa: ANN401
        seen.append(1)
        if len(seen) == COUNT:
            found.extend(
                type(each)
                for each in gc.get_referents(*gc.get_objects())
                if type(each) in (bytes, bytearray, memoryview)
                and b"MARKED" in bytes(each)
                and b"not for diagnosis" not in bytes(each)  # an output
            )
        return save(*arguments)

    monkeypatch.setattr(_JobRunner, "_save", look_and_save)
    out = inputs.parent / "out"
    results = run_on_cluster(
        two_workers.address, tiny_model, inputs, out, transfer_mode=TransferMode.BYTES
    )
    assert statuses(results) == [FileStatus.DONE] * COUNT
    assert not found


@pytest.mark.peer
@pytest.mark.parametrize("difference", ["version", "parameters"])
def test_a_worker_that_computes_otherwise_ends_the_run(
    two_workers: Cluster,
    inputs: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    difference: str,
) -> None:
    if difference == "version":
        for module in ("envelope", "dispatcher"):
            monkeypatch.setattr(f"cxrsr_cli.cluster.{module}.__version__", "9.9")
    else:
        handshake = connect._handshake

        def on_another_device(*arguments: Any) -> DerivationParameters:  # noqa: ANN401
            parameters = handshake(*arguments)
            return replace(parameters, options=replace(parameters.options, device="cuda"))

        monkeypatch.setattr(connect, "_handshake", on_another_device)
    message = "this is 9.9" if difference == "version" else "do not all compute alike"
    with pytest.raises(UsageError, match=message):
        run_on_cluster(two_workers.address, tiny_model, inputs, inputs.parent / "out")
    assert not list((inputs.parent / "out").glob("*.dcm"))


@pytest.mark.peer
def test_a_worker_that_lacks_a_library_ends_the_run(
    inputs: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An OSError of a task is not taken for a lost connection."""
    monkeypatch.setattr("cxrsr_cli.cluster.dispatcher.handle_packed_request", raise_os_error)
    with pytest.raises(UsageError, match=r"a worker cannot run cxrsr \(OSError\)"):
        run_on_cluster(ClusterAddress(None, 1), tiny_model, inputs, inputs.parent / "out")


@pytest.mark.peer
def test_a_scheduler_that_hangs_ends_the_run(
    inputs: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection stays open."""
    for index in range(COUNT, 400):
        shutil.copy(inputs / f"{index % COUNT}.dcm", inputs / f"{index}.dcm")
    monkeypatch.setattr(executor, "_RECONNECT_TIMEOUT", 2.0)
    monkeypatch.setattr(executor, "_SCHEDULER_TIMEOUT", 1.0)
    monkeypatch.setattr("cxrsr_cli.cluster.dispatcher._RESULT_TIMEOUT", 1.0)
    monkeypatch.setattr(connect, "_CONNECT_TIMEOUT", 3)
    with cluster(tmp_path, workers=1) as running:
        save = _JobRunner._save

        def stop_and_save(*arguments: Any) -> Any:  # noqa: ANN401
            running.scheduler.send_signal(signal.SIGSTOP)
            return save(*arguments)

        monkeypatch.setattr(_JobRunner, "_save", stop_and_save)
        timer = threading.Timer(60, running.scheduler.send_signal, [signal.SIGCONT])
        timer.start()
        try:
            with pytest.raises(NetworkError, match=r"no worker of the cluster is left|was lost"):
                run_on_cluster(running.address, tiny_model, inputs, inputs.parent / "out")
        finally:
            timer.cancel()
            running.scheduler.send_signal(signal.SIGCONT)
    assert 0 < len(outputs(inputs.parent / "out")) < 400
