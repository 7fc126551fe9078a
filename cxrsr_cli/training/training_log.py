"""The log of a training in its run folder: JSON lines, TensorBoard events and a plot."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrsr_cli.common.files import atomic_write

METRICS_NAME = "metrics.jsonl"
PLOT_NAME = "metrics.png"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of the training log.

    Attributes
    ----------
    step : int
        Number of steps taken.
    loss : float
        Mean since the previous line, in network values.
    learning_rate : float
        That of the last step.
    seconds : float
        Time since this process started its loop.
    psnr, psnr_skip : float or None
        PSNR in dB of the output and of the image skip on the
        validation images, at steps with a validation. The peak is 1 in network
        values, so only the difference of the two can be compared between data
        sets.
    """

    step: int
    loss: float
    learning_rate: float
    seconds: float
    psnr: float | None = None
    psnr_skip: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the values that are not None, by name."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value is not None}


class TrainingLog:
    """Writes ``metrics.jsonl``, and TensorBoard events and a plot if these are installed.

    Parameters
    ----------
    folder : Path
        The run folder.
    step : int
        First step of this process. Later lines are removed, because a resume
        takes these steps again.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / METRICS_NAME
        self._plot = folder / PLOT_NAME
        self._rows = [line for line in _read(self._path) if line["step"] <= step]
        with atomic_write(self._path) as temporary:
            temporary.write_text("".join(map(_as_text, self._rows)), encoding="utf-8")
        self._tensorboard = _tensorboard(folder, step)

    def add(self, entry: LogEntry) -> None:
        """Write one line; update the plot if the line has a validation."""
        numbers = entry.as_dict()
        self._rows.append(numbers)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_as_text(numbers))
        if self._tensorboard:
            for name in numbers.keys() - {"step"}:
                self._tensorboard.add_scalar(name, numbers[name], entry.step)
            self._tensorboard.flush()
        if entry.psnr is not None:
            plot_metrics(self._rows, self._plot)


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    # A process that was killed may leave a line without its end.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def _as_text(numbers: dict[str, Any]) -> str:
    return json.dumps(numbers) + "\n"


def _tensorboard(folder: Path, step: int) -> Any:  # noqa: ANN401 - torch's writer, if installed
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


def plot_metrics(lines: Sequence[dict[str, Any]], path: Path) -> bool:
    """Plot the log of a training, if matplotlib is installed (the extra ``plot``).

    Parameters
    ----------
    lines : sequence of dict
        The lines of ``metrics.jsonl``.
    path : Path
        PNG to write.

    Returns
    -------
    bool
        Whether matplotlib is installed.
    """
    try:
        # pyplot would keep figures and choose a display for the whole process.
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
