"""What the tests' workers load first (``--preload``), so that files can tell them to die."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from cxrsr_cli.cluster import file_transfer
from cxrsr_cli.upscaler import DecodedSource, UpscaledFrames, Upscaler

KILL = "KILL"
"""Image Comments of a file that kills every worker; followed by a path: only the first."""
SLOW = "SLOW"
"""Image Comments of a file that takes 0.2 seconds."""
ELSEWHERE = "elsewhere.dcm"
"""Name of a file that workers see with another content."""


def dask_setup(_worker: object) -> None:
    """Change what a worker does."""
    upscale, fingerprint = Upscaler.upscale, file_transfer._fingerprint

    def upscale_or_die(
        self: Upscaler, decoded: DecodedSource, advance: Callable[[float], None]
    ) -> UpscaledFrames:
        word, _, marker = str(decoded.source.dataset.get("ImageComments")).partition(" ")
        if word == KILL and not (marker and Path(marker).exists()):
            if marker:
                Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if word == SLOW:
            for _ in range(20):
                time.sleep(0.01)
                advance(0)
        return upscale(self, decoded, advance)

    def other_fingerprint(path: Path) -> tuple[int, str]:
        size, head = fingerprint(path)
        return (size, "another") if path.name == ELSEWHERE else (size, head)

    Upscaler.upscale = upscale_or_die  # type: ignore[assignment, method-assign]
    file_transfer._fingerprint = other_fingerprint
