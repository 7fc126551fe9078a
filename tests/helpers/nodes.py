"""Run ``cxrsr serve`` as a service manager would, and look at what it says."""

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cxrsr_cli.serve.spool import Spool
from tests.conftest import ROOT
from tests.helpers.waiting import HANG_SECONDS, wait_until
from tests.helpers.warm_command import WarmProcess, start_warm


@dataclass
class Node:
    """A node that runs in a process of its own."""

    process: WarmProcess
    log: Path
    spool: Spool
    already: int = 0
    """Lines of the log that earlier processes wrote."""

    def events(self, kind: str = "", *, earlier: bool = False) -> list[dict[str, Any]]:
        """Return what it said, as read from its log."""
        lines = self.log.read_text(encoding="utf-8").split("\n")[:-1]
        said = [json.loads(line) for line in lines[0 if earlier else self.already :]]
        return [event for event in said if kind in ("", event["event"])]

    def wait(self, kind: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until it said something so many times."""
        wait_until(
            lambda: len(self.events(kind)) >= count or self.process.poll() is not None,
            f"{count} times '{kind}', see {self.log}",
        )
        found = self.events(kind)
        assert len(found) >= count, self.log.read_text(encoding="utf-8")[-2000:]
        return found

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.wait("listening")[0]["reason"].rsplit(" ", 1)[1])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal, and return how it ended."""
        self.process.send_signal(number)
        return self.process.wait(HANG_SECONDS)


def configure(
    folder: Path,
    model: Path,
    destinations: dict[str, Any],
    rules: Sequence[dict[str, Any]] = (),
    **others: object,
) -> Path:
    """Write a configuration that upscales everything, with a model that tests made."""
    names = list(destinations)
    how = {"scale": 2, "model": str(model)}
    plain = {
        "spool": str(folder / "spool"),
        "scp": {"port": 0},
        "destinations": destinations,
        "rules": list(rules) or [{"name": "all", "upscale": how, "send_to": names}],
        "device": "cpu",
        "retry": {"initial_delay": 0.2, "max_delay": 1.0, "max_attempts": 200},
        **others,
    }
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    return path


@contextmanager
def running(config: Path) -> Iterator[Node]:
    """Run a node until the block ends; wait for nothing."""
    spool = Spool(Path(yaml.safe_load(config.read_text(encoding="utf-8"))["spool"]))
    log = config.with_suffix(".log")
    already = log.read_text(encoding="utf-8").count("\n") if log.exists() else 0
    log.touch()
    process = start_warm(["serve", "--log-json", str(config)], folder=ROOT, stderr=log)
    try:
        yield Node(process, log, spool, already)
    finally:
        process.kill()
        process.wait()
