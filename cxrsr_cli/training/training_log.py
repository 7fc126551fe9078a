"""What a run folder says of a training while it goes on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrsr_cli.common.files import atomic_write

METRICS_NAME = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of the training log.

    Attributes
    ----------
    step : int
        Steps taken.
    loss : float
        In network values, mean since the line before.
    learning_rate : float
        Of the last step.
    seconds : float
        Since this process started its loop.
    psnr, psnr_skip : float or None
        dB on the validation images of the projected output and of the image
        skip, when they were measured at this step. The peak is 1 in network
        values, so only their difference compares across data sets. What a
        degradation damaged is not projected.
    """

    step: int
    loss: float
    learning_rate: float
    seconds: float
    psnr: float | None = None
    psnr_skip: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what is there, by name."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value is not None}


class TrainingLog:
    """``metrics.jsonl``, and where these are installed TensorBoard's events and a plot.

    Parameters
    ----------
    folder : Path
        Of the run.
    step : int
        Lines after it are dropped: a resume takes these steps again.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / METRICS_NAME
        self._plot = folder / PLOT_NAME
        self._lines = [line for line in _read(self._path) if line["step"] <= step]
        with atomic_write(self._path) as temporary:
            temporary.write_text("".join(map(_as_text, self._lines)), encoding="utf-8")
        self._board = _tensorboard(folder, step)

    def add(self, progress: LogEntry) -> None:
        """Write one line; draw the plot again when it holds a validation."""
        numbers = progress.as_dict()
        self._lines.append(numbers)
        with self._path.open("a", encoding="utf-8") as opened:
            opened.write(_as_text(numbers))
        if self._board:
            for name in numbers.keys() - {"step"}:
                self._board.add_scalar(name, numbers[name], progress.step)
            self._board.flush()
        if progress.psnr is not None:
            plot_metrics(self._lines, self._plot)


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _as_text(numbers: dict[str, Any]) -> str:
    return json.dumps(numbers) + "\n"


def _tensorboard(folder: Path, step: int) -> Any:  # noqa: ANN401 - torch's writer, if there is one
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


PLOT_NAME = "metrics.png"


def plot_metrics(lines: Sequence[dict[str, Any]], path: Path) -> bool:
    """Draw the log of a training, if matplotlib is installed (the ``plot`` extra).

    Parameters
    ----------
    lines : sequence of dict
        As in ``metrics.jsonl``.
    path : Path
        PNG to write.

    Returns
    -------
    bool
        Whether there is matplotlib.
    """
    try:
        # Not pyplot, which keeps figures and picks a screen for the whole process.
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(7, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.plot([line["step"] for line in lines], [line["loss"] for line in lines])
    upper.set_ylabel("loss")
    upper.set_yscale("log")
    for name, label in (("psnr", "network"), ("psnr_skip", "image skip")):
        measured = [line for line in lines if name in line]
        steps = [line["step"] for line in measured]
        lower.plot(steps, [line[name] for line in measured], marker=".", label=label)
    lower.set_ylabel("validation PSNR / dB")
    lower.set_xlabel("step")
    lower.legend()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return True
