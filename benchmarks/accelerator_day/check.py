"""The check: run the tests that need an accelerator, and record each as it ends."""

import time

import pytest

from benchmarks.accelerator_day.bundle import ROOT
from benchmarks.accelerator_day.results import Results

STAGE = "check"
_PATTERN = "test_accelerator.py"
_MAX_TEXT = 4000
"""Characters of a failure that are recorded, from its end."""


class _Recorder:
    """A plugin of pytest."""

    def __init__(self, results: Results, deadline: float) -> None:
        self.results = results
        self.deadline = deadline
        self.outcomes = {"passed": 0, "failed": 0, "skipped": 0}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        self.outcomes[report.outcome] += 1
        text = "" if report.outcome == "passed" else str(report.longrepr)[-_MAX_TEXT:]
        self.results.add(
            STAGE,
            test=report.nodeid,
            outcome=report.outcome,
            seconds=round(report.duration, 3),
            text=text,
        )

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if time.monotonic() > self.deadline:
            pytest.exit(f"the time is over before {item.name}", returncode=1)


def check(results: Results, device: str, deadline: float, tests: str = "") -> bool:
    """Run the tests.

    Parameters
    ----------
    results : Results
        Gets a record for each test and one for all.
    device : str
        With ``cpu``, the same tests run on the CPU, as far as they can.
    deadline : float
        Time of `time.monotonic` after which no test is started.
    tests : str
        Only these tests, an expression of ``pytest -k``.

    Returns
    -------
    bool
        Whether at least one test ran and all that ran passed.
    """
    files = sorted(map(str, (ROOT / "tests").rglob(_PATTERN)))
    recorder = _Recorder(results, deadline)
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "-W", "default"]
    options += ["-m", "not gpu" if device == "cpu" else "gpu", "-k", tests]
    code = pytest.main([*options, *files], plugins=[recorder])
    passed = code == pytest.ExitCode.OK and recorder.outcomes["passed"] > 0
    results.add(STAGE, **recorder.outcomes, exit_code=int(code), ok=passed)
    return passed
