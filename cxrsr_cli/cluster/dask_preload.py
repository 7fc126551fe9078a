"""What Dask runs first in a local worker process (``--preload``)."""

import signal

from cxrsr_cli.common.quiet_libraries import quiet_dask


def dask_setup(_worker: object) -> None:
    """Ignore the signals that end the client.

    A terminal's Ctrl-C and a batch system's SIGTERM go to all processes. The client handles
    them and ends the workers, which must finish their files first.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    quiet_dask().__enter__()
