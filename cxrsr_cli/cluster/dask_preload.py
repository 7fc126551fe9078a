"""What a local worker process does first, as ``--preload`` of Dask."""

import signal

from cxrsr_cli.common.quiet_libraries import quiet_dask


def dask_setup(_worker: object) -> None:
    """Leave signals to the client.

    A terminal's Ctrl-C and a batch system's SIGTERM go to all processes; files
    in hand can be finished only by workers that live on. The client ends
    them, and they end with it.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    quiet_dask().__enter__()
