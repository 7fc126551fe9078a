"""A second signal ends a command at once, whatever it waits for."""

import signal
import subprocess
import sys

import pytest

from cxrsr_cli.errors import ExitCode
from tests.helpers.waiting import HANG_SECONDS

HANGING = """
import time
from concurrent.futures import ThreadPoolExecutor
from cxrsr_cli.commands.console import (
    end_on_second_signal, graceful_stop, install_interrupt_handlers
)

install_interrupt_handlers()
end_on_second_signal()
with graceful_stop() as stop, ThreadPoolExecutor(1) as pool:
    reading = pool.submit(time.sleep, 36000)
    print("ready", flush=True)
    reading.result()
"""


@pytest.mark.process
@pytest.mark.parametrize(
    "numbers",
    [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)],
    ids=["SIGTERM first", "Ctrl-C first"],
)
def test_a_second_signal_ends_a_run_whose_thread_hangs(numbers: tuple[signal.Signals, ...]) -> None:
    """A share that does not answer, for example. The pool waits for its thread ten hours."""
    with subprocess.Popen([sys.executable, "-c", HANGING], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            for number in numbers:
                process.send_signal(number)
            assert process.wait(HANG_SECONDS) == ExitCode.INTERRUPTED
        finally:
            process.kill()
