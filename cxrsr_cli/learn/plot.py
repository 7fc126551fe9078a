"""Draw loss and validation of a training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cxrsr_cli.write.atomic import atomic_write

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
