"""A cluster of real processes for all tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.helpers.clusters import Cluster, cluster
from tests.helpers.waiting import wait_until


@pytest.fixture(scope="package")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start a scheduler and two workers; neither logs nor folders may keep anything of a file."""
    folder = tmp_path_factory.mktemp("cluster")
    with cluster(folder, workers=2) as running:
        yield running
        # Nor does a file stay where a worker was killed.
        wait_until(lambda: not list(folder.rglob("*.dcm")), "no file is left with the workers")
        logs = "".join(log.read_text() for log in running.logs)
    assert "distributed.scheduler" in logs
    assert not any(word in logs for word in ("Example", "Compute Failed", "/in/", ".dcm"))
