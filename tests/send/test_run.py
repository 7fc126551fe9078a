"""A run of send: retries, and its exit code."""

from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from cxrsr_cli.batch.discover import InputFile
from cxrsr_cli.connections.destination import SendOutcome, SendResult, never_stop
from cxrsr_cli.errors import ExitCode, UsageError
from cxrsr_cli.send.run import exit_code, send_with_retries


@dataclass
class Failing:
    """A destination that fails every file; `error` ends its second attempt."""

    error: BaseException | None = None
    times: int = 0

    def check(self) -> str:
        """Report no problem."""
        return ""

    def send(
        self, files: Sequence[Path], stop: Callable[[], bool] = never_stop
    ) -> Generator[SendResult, None, None]:
        """Fail each file."""
        self.times += 1
        for file in files:
            if self.times == 2 and self.error and file is files[1]:
                raise self.error
            yield SendResult(file, SendOutcome.FAILED, str(self.times))
            if stop():
                return


@pytest.mark.parametrize("error", [UsageError("no token"), KeyboardInterrupt(), None])
def test_each_file_that_was_tried_has_one_result(error: BaseException | None) -> None:
    names = ["a", "b", "c"]
    found = [InputFile(Path(name)) for name in names]
    told: list[SendResult] = []
    sending = send_with_retries(Failing(error), found, retries=1)
    with pytest.raises(type(error)) if error else nullcontext():
        told.extend(sending)
    said = {sent.path.name: sent.message for sent in told}
    assert len(told) == 3
    assert said == dict(zip(names, "211" if error else "222", strict=True))


SENT = {
    "arrived": SendResult(Path("a"), SendOutcome.STORED),
    "warned": SendResult(Path("b"), SendOutcome.WARNED),
    "refused": SendResult(Path("c"), SendOutcome.REFUSED),
    "lost": SendResult(Path("d"), SendOutcome.FAILED),
    "bad": SendResult(Path("e"), SendOutcome.REFUSED, decided_by_peer=False),
}


@pytest.mark.parametrize(
    ("results", "code"),
    [
        (["arrived", "warned"], ExitCode.OK),
        (["arrived", "lost"], ExitCode.SOME_FAILED),
        (["refused", "lost"], ExitCode.NETWORK),
        (["bad", "lost"], ExitCode.ALL_FAILED),
        (["bad"], ExitCode.ALL_FAILED),
    ],
)
def test_the_exit_code_of_a_run(results: list[str], code: ExitCode) -> None:
    sent = [SENT[name] for name in results]
    assert exit_code(sent, len(sent)) is code
    assert exit_code(sent, len(sent) + 1) is ExitCode.INTERRUPTED
