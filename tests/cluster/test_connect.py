"""How a run finds its cluster, and what is said if there is none."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from cxrsr_cli.cluster import connect
from cxrsr_cli.cluster.address import ClusterAddress
from cxrsr_cli.cluster.messages import WorkRequest, WorkResponse
from cxrsr_cli.errors import ExitCode, MissingExtraError, ModelError, NetworkError
from cxrsr_cli.upscaler import Upscaler
from tests.helpers.clusters import FakeClient, fake_executor, killed_worker


@pytest.mark.process
@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("", ExitCode.USAGE, "--cluster is empty; is a variable not set?"),
        ("nonsense", ExitCode.USAGE, "is none of tcp://HOST:PORT"),
        ("local:0", ExitCode.USAGE, "is none of"),
        ("tcp://host", ExitCode.USAGE, "is none of"),
        ("none.json", ExitCode.USAGE, "is the scheduler running?"),
        ("empty.json", ExitCode.USAGE, "is not a scheduler file"),
        ("other.json", ExitCode.USAGE, "is not a scheduler file"),
        ("tcp://127.0.0.1:1", ExitCode.NETWORK, "no Dask scheduler answered at tcp://127.0.0.1:1"),
    ],
)  # fmt: skip
def test_a_cluster_that_does_not_exist_is_reported_in_one_line(
    inputs: Path, text: str, code: ExitCode, message: str
) -> None:
    """Torch is not imported for it."""
    folder = inputs.parent
    (folder / "empty.json").touch()
    (folder / "other.json").write_text('{"address": "file:///etc/passwd"}')
    program = (
        "import sys, cxrsr_cli.commands.app as app\n"
        "import cxrsr_cli.cluster.address\n"
        f"sys.argv = ['cxrsr', 'upscale', '--cluster', {text!r}, 'in', 'out']\n"
        "if '127' in sys.argv[3]:\n"
        "    import cxrsr_cli.cluster.connect as connect\n"
        "    connect._CONNECT_TIMEOUT = 1\n"
        "try:\n    app.main()\n"
        "finally:\n    assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False, capture_output=True, text=True, cwd=folder, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "out").exists()


def test_a_missing_dask_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxrsr_cli.cluster.address.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cxrsr\[cluster\]'"):
        ClusterAddress.parse("local:2")


@pytest.mark.process
def test_help_does_not_import_dask() -> None:
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


@pytest.mark.process
def test_the_scheduler_needs_no_torch() -> None:
    """It unpickles the arguments of tasks, so it imports the envelope."""
    program = (
        "import sys, cxrsr_cli.cluster.envelope\n"
        "assert not {'torch', 'numpy', 'pydicom'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_error_of_the_run_is_not_one_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TimeoutError, such as a file server's, is passed on."""
    monkeypatch.setattr(connect, "Client", MagicMock())
    with pytest.raises(TimeoutError), connect._connected_client("tcp://127.0.0.1:1"):
        raise TimeoutError


def test_workers_that_die_without_a_file_end_the_run(upscaler: Upscaler) -> None:
    """No file is to blame for it."""

    def respond(request: WorkRequest) -> WorkResponse:
        assert request.transfer is None
        raise killed_worker()

    client = FakeClient(respond)
    executor = fake_executor(client, upscaler)
    with pytest.raises(NetworkError, match="workers die while they load the model"):
        connect._handshake(executor.client, executor.weights, executor.request)
    assert len(client.futures) == 3


def test_a_worker_that_does_not_answer_ends_the_run(
    upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "_HANDSHAKE_TIMEOUT", 0.1)
    executor = fake_executor(FakeClient(), upscaler)
    with pytest.raises(NetworkError, match="no worker of the cluster answered in time"):
        connect._handshake(executor.client, executor.weights, executor.request)


def test_weights_that_cannot_be_read_are_a_model_error(tmp_path: Path, upscaler: Upscaler) -> None:
    client: Any = FakeClient()
    with pytest.raises(ModelError, match="cannot read the weights"):
        connect._submit_weights(client, replace(upscaler.model, path=tmp_path / "gone"))
