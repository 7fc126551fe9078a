"""Many machines: what a cluster does is what this process would have done."""

import gc
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import psutil
import pytest
from distributed import KilledWorker

from cxrsr_cli.batch.ledger import LEDGER_NAME
from cxrsr_cli.batch.plan import plan_batch
from cxrsr_cli.batch.records import RunRecords
from cxrsr_cli.batch.result import FileStatus
from cxrsr_cli.batch.runner import BatchRunner, LocalExecutor
from cxrsr_cli.cluster import connect, executor
from cxrsr_cli.cluster.address import ClusterAddress
from cxrsr_cli.cluster.client import ClientWorker, ClusterRunConfig
from cxrsr_cli.cluster.dispatcher import Dispatcher, SharedExclusiveLock
from cxrsr_cli.cluster.envelope import VersionedPickle, pack
from cxrsr_cli.cluster.file_transfer import BytesTransfer, TransferMode
from cxrsr_cli.cluster.messages import WeightsMissing, WorkRequest
from cxrsr_cli.common.files import TEMPORARY_PREFIX, TEMPORARY_SUFFIX
from cxrsr_cli.errors import (
    ExitCode,
    MissingExtraError,
    ModelError,
    NetworkError,
    UsageError,
    WorkerCrashedError,
)
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.options import UpscaleOptions
from cxrsr_cli.upscaler import Upscaler
from tests.conftest import COUNT, ROOT, small_chest
from tests.helpers.batches import command, jobs, statuses
from tests.helpers.cluster_workers import KILL, SLOW
from tests.helpers.clusters import WHEN, Cluster, Pretended, cluster, lacking, run_on
from tests.helpers.waiting import wait_until


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start a cluster of two workers for all tests; nothing of a file is in its logs."""
    folder = tmp_path_factory.mktemp("cluster")
    with cluster(folder, workers=2) as running:
        yield running
        # Nor does a file stay where a worker was killed.
        wait_until(lambda: not list(folder.rglob("*.dcm")), "it happens")
        said = "".join(log.read_text() for log in running.logs)
    assert "distributed.scheduler" in said
    assert not any(word in said for word in ("Example", "Compute Failed", "/in/", ".dcm"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.dcm")}


def options(weights: Path) -> list[str]:
    stamp = str(int(WHEN.timestamp()))
    return ["-s", "2", "-m", str(weights), "--device", "cpu", "--timestamp", stamp]


def report(path: Path) -> dict[str, Any]:
    """Read a report without what no two runs share."""
    told: dict[str, Any] = json.loads(path.read_text())
    for key in ("started", "finished", "peak_memory_bytes"):
        del told[key]
    for file in told["files"]:
        del file["seconds"], file["peak_memory_bytes"]
    return told


@pytest.mark.parametrize("shipping", list(TransferMode))
def test_everything_is_as_from_a_local_run(
    crew: Cluster, inputs: Path, tiny_model: Path, shipping: TransferMode
) -> None:
    """Outputs, report, quarantine, exit code, lines; then there is nothing left to do."""
    folder = inputs.parent
    (inputs / "deep").mkdir()
    (inputs / "deep" / "bad.dcm").write_bytes(b"bad")
    small_chest(9, BodyPartExamined="HIP").save_as(inputs / "2.dcm")
    os.mkfifo(inputs / "pipe.dcm")
    (folder / "out").mkdir()
    (folder / "out" / "4.dcm").write_bytes(b"precious")
    shutil.copytree(folder / "out", folder / "local")
    said = {}
    for name, more in (
        ("local", []),
        ("out", ["--cluster", str(crew.file), "--cluster-transfer", shipping]),
    ):
        line = [*options(tiny_model), "--quarantine", f"q-{name}", "--report", f"{name}.json"]
        done = command(folder, "upscale", *line, *more, "in", name)
        assert done.returncode == ExitCode.SOME_FAILED, done.stderr
        said[name] = {text.replace(f"{name}/", "") for text in done.stderr.splitlines()}
        assert "4 upscaled, 4 failed" in done.stdout
    assert said["local"] == said["out"]
    assert content(folder / "out") == content(folder / "local")
    assert content(folder / "q-out") == content(folder / "q-local")
    ours, theirs = report(folder / "local.json"), report(folder / "out.json")
    for file in theirs["files"]:
        file["output"] = file["output"].replace("out/", "local/")
        if file["error"]:
            file["error"]["message"] = file["error"]["message"].replace("out/", "local/")
    assert theirs == ours
    assert not list((folder / "out").rglob(f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}"))
    results = run_on(crew.address, tiny_model, inputs, folder / "out", shipping=shipping)
    assert statuses(results).count(FileStatus.UP_TO_DATE) == 4
    assert statuses(results).count(FileStatus.FAILED) == 4


def test_a_dry_run_writes_nothing(crew: Cluster, inputs: Path, tiny_model: Path) -> None:
    (inputs / "1.dcm").write_bytes(b"bad")
    results = run_on(crew.address, tiny_model, inputs, inputs.parent / "out", dry_run=True)
    assert statuses(results).count(FileStatus.DRY_RUN) == COUNT - 1
    assert results[0].output_shape == (48, 40)
    assert {path.name for path in inputs.parent.iterdir()} == {"in"}


@pytest.mark.parametrize("shipping", list(TransferMode))
def test_a_file_that_kills_workers_fails_alone(
    crew: Cluster, inputs: Path, tiny_model: Path, shipping: TransferMode
) -> None:
    """One that does so once is done; the other files do not suffer."""
    marker = inputs.parent / "marker"
    small_chest(1, ImageComments=f"{KILL} {marker}").save_as(inputs / "1.dcm")
    if shipping is TransferMode.PATHS:
        small_chest(2, ImageComments=KILL).save_as(inputs / "2.dcm")
    out, quarantine = inputs.parent / "out", inputs.parent / "q"
    results = run_on(
        crew.address, tiny_model, inputs, out, shipping=shipping, quarantine=quarantine
    )
    assert marker.exists()
    bad = [result for result in results if result.status is not FileStatus.DONE]
    assert set(content(out)) == {f"{n}.dcm" for n in range(COUNT)} - set(content(quarantine))
    assert [result.job.source.name for result in bad] == list(content(quarantine))
    if shipping is TransferMode.PATHS:
        assert isinstance(bad[0].error, WorkerCrashedError)
        assert "the worker died 3 times on it" in str(bad[0].error)


def test_weights_are_shipped_to_workers_without_them(
    crew: Cluster, inputs: Path, tiny_model: Path
) -> None:
    hidden = inputs.parent / "hidden.safetensors"
    shutil.copy(tiny_model, hidden)
    with hidden.open("r+b") as opened:  # another hash, so that no worker has it in memory
        text = opened.read().replace(b'"data":"none"', b'"data":"nine"')
        opened.seek(0)
        opened.write(text)
    results = run_on(crew.address, hidden, inputs, inputs.parent / "out")
    assert statuses(results) == [FileStatus.DONE] * COUNT


def test_a_file_system_that_is_not_shared_is_found_out(
    crew: Cluster, inputs: Path, tiny_model: Path
) -> None:
    shutil.move(inputs / "5.dcm", inputs / "elsewhere.dcm")
    out, quarantine = inputs.parent / "out", inputs.parent / "q"
    results = run_on(crew.address, tiny_model, inputs, out, quarantine=quarantine)
    assert statuses(results) == [FileStatus.DONE] * (COUNT - 1) + [FileStatus.FAILED]
    assert "use --cluster-transfer bytes" in str(results[-1].error)
    assert not quarantine.exists()


def test_a_bounded_number_of_files_is_in_hand(
    crew: Cluster, inputs: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(COUNT, 24):
        small_chest(index, ImageComments=SLOW).save_as(inputs / f"{index}.dcm")
    inside, most, lock = 0, 0, threading.Lock()
    attend = ClientWorker.run

    def attending(self: ClientWorker, job: Any) -> Any:  # noqa: ANN401
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        try:
            return attend(self, job)
        finally:
            with lock:
                inside -= 1

    monkeypatch.setattr(ClientWorker, "run", attending)
    results = run_on(crew.address, tiny_model, inputs, inputs.parent / "out")
    assert statuses(results) == [FileStatus.DONE] * 24
    assert 2 < most <= 3 * 2


def attendant(dispatcher: Dispatcher, upscaler: Upscaler, io_workers: int = 1) -> ClientWorker:
    """Return one that ships bytes."""
    orders = ClusterRunConfig(
        model=upscaler.model,
        options=UpscaleOptions(device="cpu"),
        parameters=upscaler.parameters,
        clock=lambda: WHEN,
        transfer_mode=TransferMode.BYTES,
        io_workers=io_workers,
    )
    return ClientWorker(orders, RunRecords(orders.parameters), dispatcher)


def contents() -> int:
    """Count the contents of files and weights that this process keeps, packed or not."""
    return sum(
        (type(each) is BytesTransfer and bool(each.source))
        or (type(each) is WorkRequest and each.weights is not None)
        or type(each) is VersionedPickle
        for each in gc.get_objects()
    )


def test_no_content_is_kept_while_workers_have_the_files(inputs: Path, upscaler: Upscaler) -> None:
    """Not the weights, either; what is sent again after a worker's death is read again."""
    client = Pretended()
    dispatcher = Dispatcher(client, 2)  # type: ignore[arg-type]
    attending = attendant(dispatcher, upscaler, 2)
    with ThreadPoolExecutor(COUNT) as pool:
        try:
            results = [pool.submit(attending.run, job) for job in jobs(inputs)]
            wait_until(lambda: len(client.futures) == COUNT, "it happens")
            wait_until(lambda: contents() == 0, "it happens")
            for index in range(COUNT):
                small_chest(10 + index).save_as(inputs / f"{index}.dcm")
            for future in client.futures[: COUNT - 1]:
                future.set_exception(KilledWorker("task", None, 0))  # type: ignore[arg-type]
            answer = pack(WeightsMissing())
            client.futures[COUNT - 1].set_result(answer)
            del answer, future
            client.futures[:COUNT] = []
            wait_until(lambda: len(client.futures) == COUNT, "it happens")
            wait_until(lambda: contents() == 0, "it happens")
        finally:
            dispatcher.cancel()
        assert [result.result(10) for result in results] == [None] * COUNT
    read = {hashlib.sha256(path.read_bytes()).digest() for path in inputs.iterdir()}
    assert set(client.sources[COUNT:]) == read
    assert len(client.sources) == 2 * COUNT


@pytest.mark.parametrize(("owner", "turn", "looks"), [
    ("attendant", 1, 0),
    ("dispatcher", 1, 1),
    ("attendant", 2, 1),
])  # fmt: skip
def test_nothing_is_read_after_the_end(
    inputs: Path,
    upscaler: Upscaler,
    monkeypatch: pytest.MonkeyPatch,
    owner: str,
    turn: int,
    looks: int,
) -> None:
    """The run ends while a file waits for its turn to be looked at, sent, read."""
    client: Any = Pretended()
    dispatcher = Dispatcher(client)
    attending = attendant(dispatcher, upscaler)
    turns, looked = list[None](), list[Path]()

    class Turns:
        def __enter__(self) -> None:
            turns.append(None)
            if len(turns) == turn:
                dispatcher.cancel()

        def __exit__(self, *_: object) -> None:
            pass

    if owner == "attendant":
        attending._reading = Turns()  # type: ignore[assignment]
    else:
        dispatcher._making = Turns()  # type: ignore[assignment]
    monkeypatch.setattr(RunRecords, "find_completed", lambda _, job: looked.append(job.source))
    monkeypatch.setattr("cxrsr_cli.cluster.client.prepare_transfer", lambda *_: pytest.fail("read"))
    assert attending.run(jobs(inputs)[0]) is None
    assert (len(turns), len(looked)) == (turn, looks)
    assert not client.futures


def test_dask_keeps_no_content_either(
    crew: Cluster, inputs: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log of messages would."""
    for path in inputs.iterdir():
        small_chest(int(path.stem), ImageComments="MARKED").save_as(path)
    delivered, seen, found = ClientWorker._delivered, list[int](), list[object]()

    def delivering(*arguments: Any) -> Any:  # noqa: ANN401
        seen.append(1)
        if len(seen) == COUNT:
            found.extend(
                type(each)
                for each in gc.get_referents(*gc.get_objects())
                if type(each) in (bytes, bytearray, memoryview)
                and b"MARKED" in bytes(each)
                and b"not for diagnosis" not in bytes(each)  # an output
            )
        return delivered(*arguments)

    monkeypatch.setattr(ClientWorker, "_delivered", delivering)
    out = inputs.parent / "out"
    results = run_on(crew.address, tiny_model, inputs, out, shipping=TransferMode.BYTES)
    assert statuses(results) == [FileStatus.DONE] * COUNT
    assert not found


@pytest.mark.parametrize("difference", ["version", "recipe"])
def test_workers_that_compute_otherwise_are_refused(
    crew: Cluster,
    inputs: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    difference: str,
) -> None:
    if difference == "version":
        for module in ("task", "dispatch"):
            monkeypatch.setattr(f"cxrsr_cli.cluster.{module}.__version__", "9.9")
    else:
        real = connect._handshake

        def introducing(*arguments: Any) -> object:  # noqa: ANN401
            parameters = real(*arguments)
            return replace(parameters, options=replace(parameters.options, device="cuda"))

        monkeypatch.setattr(connect, "_handshake", introducing)
    says = "this is 9.9" if difference == "version" else "do not all compute alike"
    with pytest.raises(UsageError, match=says):
        run_on(crew.address, tiny_model, inputs, inputs.parent / "out")
    assert not list((inputs.parent / "out").glob("*.dcm"))


def test_workers_that_die_without_a_file(upscaler: Upscaler) -> None:
    """That is not the fault of one."""

    def answer(errand: WorkRequest) -> WeightsMissing:
        assert errand.transfer is None
        raise KilledWorker("task", None, 0)  # type: ignore[arg-type]

    client: Any = Pretended(answer)
    with pytest.raises(NetworkError, match="workers die while they load the model"):
        connect._handshake(client, upscaler.model, UpscaleOptions(device="cpu"), lambda: WHEN)
    assert len(client.futures) == 3


@pytest.mark.parametrize(
    ("there", "says"), [(False, "cannot read the weights"), (True, "did not get the weights")]
)
def test_weights_that_do_not_arrive(
    tmp_path: Path, upscaler: Upscaler, there: bool, says: str
) -> None:
    client: Any = Pretended(lambda _: WeightsMissing())
    model = replace(upscaler.model, path=upscaler.model.path if there else tmp_path / "gone")
    with pytest.raises(ModelError, match=says):
        connect._handshake(client, model, UpscaleOptions(device="cpu"), lambda: WHEN)


def test_a_worker_that_cannot_work(
    inputs: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An OSError of a task is no lost connection."""
    monkeypatch.setattr("cxrsr_cli.cluster.dispatcher.handle_packed_request", lacking)
    with pytest.raises(UsageError, match=r"a worker cannot do cxrsr's work \(OSError\)"):
        run_on(ClusterAddress(None, 1), tiny_model, inputs, inputs.parent / "out")


def many(inputs: Path, count: int = 60) -> None:
    for index in range(COUNT, count):
        shutil.copy(inputs / f"{index % COUNT}.dcm", inputs / f"{index}.dcm")


def started(folder: Path, *line: str) -> "subprocess.Popen[str]":
    """Start the command, and wait for its first output."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cxrsr_cli", "upscale", *line, "in", "out"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(
        lambda: process.poll() is not None or bool(list((folder / "out").glob("*.dcm"))),
        "it happens",
    )
    return process


def alive(process: psutil.Process) -> bool:
    """Tell whether a process runs; one that nobody buried does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_local_worker_is_killed(inputs: Path, tiny_model: Path) -> None:
    """No output is lost, twice there or not whole."""
    many(inputs)
    folder = inputs.parent
    with started(folder, *options(tiny_model), "--cluster", "local:2") as process:
        children = psutil.Process(process.pid).children(recursive=True)
        workers = [child for child in children if "spawn_main" in "".join(child.cmdline())]
        assert len(workers) == 2
        workers[0].kill()
        output, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (ExitCode.OK, "")
    assert output.startswith("60 upscaled, 0 failed")
    wait_until(lambda: not any(map(alive, children)), "it happens")
    here = Upscaler.load(
        find_model(str(tiny_model), 2), UpscaleOptions(device="cpu"), clock=lambda: WHEN
    )
    assert (
        len(list(BatchRunner(LocalExecutor(here)).run(plan_batch([inputs], folder / "local").jobs)))
        == 60
    )
    assert content(folder / "out") == content(folder / "local")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_signals(inputs: Path, tiny_model: Path, name: str) -> None:
    """To all processes, as terminals and batch systems send them; nothing half done is left."""
    many(inputs, 400)
    folder = inputs.parent
    line = [*options(tiny_model), "--report", "r.json", "--cluster", "local:1"]
    with started(folder, *line) as process:
        os.killpg(process.pid, getattr(signal, name))
        output, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (ExitCode.INTERRUPTED, "")
    counts = json.loads((folder / "r.json").read_text())["counts"]
    assert counts["done"] == len(content(folder / "out")) > 0
    assert counts["not processed"] == 400 - counts["done"] > 0
    assert output.startswith(f"Interrupted: {counts['done']} upscaled")
    assert f"{counts['not processed']} not processed" in output
    assert {path.suffix for path in (folder / "out").iterdir()} == {".dcm", ".sqlite"}


def test_the_scheduler_is_lost(inputs: Path, tiny_model: Path, tmp_path: Path) -> None:
    many(inputs, 400)
    with cluster(tmp_path, workers=1) as running:
        line = [*options(tiny_model), "--report", "r.json", "--cluster", str(running.file)]
        with started(tmp_path, *line) as process:
            running.scheduler.kill()
            output, error = process.communicate(timeout=60)
    assert process.returncode == ExitCode.NETWORK
    assert error == "cxrsr: the connection to the cluster's scheduler was lost\n"
    assert output.startswith("Ended early: ")
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["exit_code"] == ExitCode.NETWORK
    assert told["counts"]["done"] == len(content(tmp_path / "out")) > 0
    assert told["counts"]["failed"] == 0
    assert told["counts"]["not processed"] == 400 - told["counts"]["done"] > 0


def test_the_scheduler_hangs(
    inputs: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection stays; the run ends nevertheless."""
    many(inputs, 400)
    monkeypatch.setattr(executor, "_RECONNECT_TIMEOUT", 2.0)
    monkeypatch.setattr(executor, "_SCHEDULER_TIMEOUT", 1.0)
    monkeypatch.setattr("cxrsr_cli.cluster.dispatcher._RESULT_TIMEOUT", 1.0)
    monkeypatch.setattr(connect, "_CONNECT_TIMEOUT", 3)
    with cluster(tmp_path, workers=1) as running:
        delivered = ClientWorker._delivered

        def delivering(*arguments: Any) -> Any:  # noqa: ANN401
            running.scheduler.send_signal(signal.SIGSTOP)
            return delivered(*arguments)

        monkeypatch.setattr(ClientWorker, "_delivered", delivering)
        awake = threading.Timer(60, running.scheduler.send_signal, [signal.SIGCONT])
        awake.start()
        try:
            with pytest.raises(NetworkError, match=r"no worker of the cluster is left|was lost"):
                run_on(running.address, tiny_model, inputs, inputs.parent / "out")
        finally:
            awake.cancel()
            running.scheduler.send_signal(signal.SIGCONT)
    assert 0 < len(content(inputs.parent / "out")) < 400


def test_an_error_of_the_run_is_not_one_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TimeoutError, such as a file server's, is passed on."""
    monkeypatch.setattr(connect, "StowClient", MagicMock())
    with pytest.raises(TimeoutError), connect._client("tcp://127.0.0.1:1"):
        raise TimeoutError


@pytest.mark.parametrize("moment", ["ledger.Ledger.announce", "name", "ledger.Ledger.record"])
def test_the_client_is_killed(crew: Cluster, inputs: Path, tiny_model: Path, moment: str) -> None:
    """Before it announces, names, records the third file: the next run does what is left."""
    place = "cxrsr_cli.cluster.file_transfer" if moment == "name" else "cxrsr_cli.batch.ledger"
    owner, name = ("module", "give_name") if moment == "name" else moment.split(".")[1:]
    program = f"""
import os, signal, sys
import {place} as module
from cxrsr_cli.commands.app import main
owner = {owner if owner == "module" else f"module.{owner}"}
real, calls = owner.{name}, []
def kill(*arguments, **options):
    calls.append(arguments)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)
owner.{name} = kill
sys.argv = ["cxrsr", "upscale", *{options(tiny_model)!r}, "--cluster", {str(crew.file)!r},
            "--cluster-transfer", "paths", {str(inputs)!r}, {str(inputs.parent / "out")!r}]
main()
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    out = inputs.parent / "out"
    named = content(out)
    assert len(named) == (3 if owner == "Ledger" and name == "record" else 2)
    for orphan in out.glob(f"{TEMPORARY_PREFIX}*{TEMPORARY_SUFFIX}"):
        os.utime(orphan, (0, 0))
    results = run_on(crew.address, tiny_model, inputs, out)
    assert statuses(results).count(FileStatus.UP_TO_DATE) == len(named)
    assert statuses(results).count(FileStatus.DONE) == COUNT - len(named)
    assert {path.name for path in out.iterdir() if path.suffix != TEMPORARY_SUFFIX} == {
        LEDGER_NAME, *(f"{index}.dcm" for index in range(COUNT)),
    }  # fmt: skip
    assert named.items() <= content(out).items()


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("", ExitCode.USAGE, "--cluster is empty; is a variable not set?"),
        ("nonsense", ExitCode.USAGE, "is none of tcp://HOST:PORT"),
        ("local:0", ExitCode.USAGE, "is none of"),
        ("tcp://host", ExitCode.USAGE, "is none of"),
        ("none.json", ExitCode.USAGE, "does the scheduler run?"),
        ("empty.json", ExitCode.USAGE, "is no scheduler file"),
        ("other.json", ExitCode.USAGE, "is no scheduler file"),
        ("tcp://127.0.0.1:1", ExitCode.NETWORK, "no Dask scheduler"),
    ],
)  # fmt: skip
def test_clusters_that_are_not_there(
    inputs: Path, tiny_model: Path, text: str, code: ExitCode, says: str
) -> None:
    folder = inputs.parent
    (folder / "empty.json").touch()
    (folder / "other.json").write_text('{"address": "file:///etc/passwd"}')
    program = (
        "import sys, cxrsr_cli.commands.app as app\n"
        "import cxrsr_cli.cluster.address\n"
        f"sys.argv = ['cxrsr', 'upscale', '--cluster', {text!r}, 'in', 'out']\n"
        "if '127' in sys.argv[3]:\n"
        "    import cxrsr_cli.cluster.connect as joining\n"
        "    connect._CONNECTING = 1\n"
        "try:\n    app.main()\n"
        "finally:\n    assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False, capture_output=True, text=True, cwd=folder, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "out").exists()


def test_without_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxrsr_cli.cluster.address.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cxrsr\[cluster\]'"):
        ClusterAddress.parse("local:2")


def test_help_needs_no_dask() -> None:
    program = (
        "import sys\nsys.argv = ['cxrsr', 'upscale', '--help']\n"
        "from cxrsr_cli.commands.app import main\n"
        "try:\n    main()\n"
        "finally:\n    assert not {'dask', 'distributed'} & set(sys.modules), 'imported'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert "--cluster" in done.stdout
    assert "imported" not in done.stderr


def test_alone_is_alone() -> None:
    """Who wants to be alone waits for those inside, and those who come later for it."""
    gate, inside, order = SharedExclusiveLock(), threading.Event(), list[str]()
    leave = threading.Event()

    def first() -> None:
        with gate.shared():
            inside.set()
            leave.wait(10)
            order.append("first")

    def alone() -> None:
        with gate.exclusive():
            order.append("alone")

    def later() -> None:
        with gate.shared():
            order.append("later")

    threads = [threading.Thread(target=first), threading.Thread(target=alone)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    wait_until(lambda: gate._waiting == 1, "it happens")
    threads.append(threading.Thread(target=later))
    threads[2].start()
    leave.set()
    for thread in threads:
        thread.join(10)
    assert order == ["first", "alone", "later"]


FAULTS = """
import resource, sys, torch
from cxrsr_cli.common.process import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def strip():
    maps = [torch.ones(1 << 20) for _ in range(4)]

for _ in range(3):
    strip()
before = faults()
for _ in range(10):
    strip()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is the GNU C library's habit")
def test_a_worker_keeps_the_memory_of_a_strip_for_the_next() -> None:
    """Ten strips of 16 MiB are 40,000 pages, which Dask's setting has taken anew each time."""
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    counted = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, how],
                check=True,
                capture_output=True,
                text=True,
                cwd=ROOT,
                env=environment,
                timeout=120,
            ).stdout
        )
        for how in ("given back", "kept")
    }
    assert counted["given back"] > 20_000
    assert counted["kept"] < 1_000
