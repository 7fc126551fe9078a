"""What the tests' workers load first (``--preload``): they die, or are blind, when told to."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from cxrsr_cli.cluster import file_transfer, worker
from cxrsr_cli.networks.model_files import ModelFile
from cxrsr_cli.upscaler import DecodedSource, UpscaledFrames, Upscaler

KILL = "KILL"
"""Image Comments of a file that kills every worker; followed by a path: only the first."""
SLOW = "SLOW"
"""Of a file that takes its time."""


def dask_setup(_worker: object) -> None:
    """Change what a worker does."""
    restore, look, is_model = Upscaler.upscale, file_transfer._look, worker._is

    def restoring(
        self: Upscaler, opened: DecodedSource, advance: Callable[[float], None]
    ) -> UpscaledFrames:
        word, _, marker = str(opened.source.dataset.get("ImageComments")).partition(" ")
        if word == KILL and not (marker and Path(marker).exists()):
            if marker:
                Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if word == SLOW:
            for _ in range(20):
                time.sleep(0.01)
                advance(0)
        return restore(self, opened, advance)

    def looking(path: Path) -> tuple[int, str]:
        size, head = look(path)
        return (size, "another") if path.name == "elsewhere.dcm" else (size, head)

    def seeing(path: Path, model: ModelFile) -> bool:
        return path.name != "hidden.safetensors" and is_model(path, model)

    Upscaler.upscale = restoring  # type: ignore[assignment, method-assign]
    file_transfer._look = looking
    worker._is = seeing
