"""What a worker does with weights, paths and memory."""

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cxrsr_cli.batch.plan import plan_batch
from cxrsr_cli.batch.result import FileStatus
from cxrsr_cli.batch.runner import BatchRunner
from cxrsr_cli.cluster import worker
from cxrsr_cli.cluster.connect import connected_cluster
from cxrsr_cli.cluster.file_transfer import TransferMode
from cxrsr_cli.errors import ModelError
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.options import UpscaleOptions
from cxrsr_cli.upscaler import Upscaler
from tests.conftest import COUNT, ROOT
from tests.helpers.batches import statuses
from tests.helpers.cluster_workers import ELSEWHERE
from tests.helpers.clusters import (
    DERIVED_AT,
    Cluster,
    FakeClient,
    fake_executor,
    run_on_cluster,
)


@pytest.mark.peer
def test_workers_get_the_weights_through_dask(
    two_workers: Cluster, inputs: Path, tiny_model: Path
) -> None:
    """The file is gone when they load it."""
    weights = inputs.parent / "weights.safetensors"
    # Another hash, so that no worker has it in memory.
    weights.write_bytes(tiny_model.read_bytes().replace(b'"data":"none"', b'"data":"nine"'))
    with connected_cluster(
        two_workers.address,
        find_model(str(weights), 2),
        UpscaleOptions(device="cpu"),
        clock=lambda: DERIVED_AT,
        transfer_mode=TransferMode.PATHS,
    ) as executor:
        weights.unlink()
        jobs = plan_batch([inputs], inputs.parent / "out").jobs
        results = list(BatchRunner(executor).run(jobs))
    assert statuses(results) == [FileStatus.DONE] * COUNT


def test_damaged_weights_are_refused(
    tmp_path: Path, upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    dask_worker = SimpleNamespace(local_directory=tmp_path)
    monkeypatch.setattr(worker, "get_worker", lambda: dask_worker)
    model = replace(upscaler.model, sha256="0" * 64)
    request = replace(fake_executor(FakeClient(), upscaler).request, model=model)
    response = worker.handle_request(request, upscaler.model.path.read_bytes())
    assert isinstance(response, ModelError)
    assert "damaged" in str(response)


@pytest.mark.peer
def test_a_file_system_that_is_not_shared_is_detected(
    two_workers: Cluster, inputs: Path, tiny_model: Path
) -> None:
    shutil.move(inputs / "5.dcm", inputs / ELSEWHERE)
    out, quarantine = inputs.parent / "out", inputs.parent / "q"
    results = run_on_cluster(two_workers.address, tiny_model, inputs, out, quarantine=quarantine)
    assert statuses(results) == [FileStatus.DONE] * (COUNT - 1) + [FileStatus.FAILED]
    assert "use --cluster-transfer bytes" in str(results[-1].error)
    assert not quarantine.exists()


FAULTS = """
import json, resource, sys, torch
from cxrsr_cli.common.process import disable_malloc_trim

if sys.argv[1] == "kept":
    disable_malloc_trim()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def pages_of_strip():
    before = faults()
    maps = [torch.ones(1 << 20) for _ in range(4)]
    return faults() - before

for _ in range(3):
    pages_of_strip()
print(json.dumps([pages_of_strip() for _ in range(10)]))
"""


@pytest.mark.process
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library trims so")
def test_a_worker_keeps_the_memory_of_a_strip_for_the_next() -> None:
    """A strip of 16 MiB is 4096 pages, which Dask's setting takes anew each time.

    The heap may still grow once.
    """
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    counted = {
        how: json.loads(
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
    assert min(counted["given back"]) > 2_000
    assert sum(pages > 100 for pages in counted["kept"]) <= 1, counted["kept"]
