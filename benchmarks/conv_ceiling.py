"""Lower limit of the time of a network: its convolutions alone, each at its largest speed."""

from collections import Counter
from statistics import median

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom

from benchmarks.timing import clock, synchronize
from cxrsr_cli.networks.conv_program import Conv, ConvProgram

_RUNS = {"cpu": (15, 1), "cuda": (3, 20)}
"""Runs, and convolutions in a run. On a GPU, the wait for a small convolution takes longer than the
convolution, so it is waited for once in a run."""


@torch.inference_mode()
def ceiling_seconds(program: ConvProgram, height: int, width: int, rows: int) -> float:
    """Return the seconds for the convolutions of an image without border.

    Each shape of convolution is repeated, channels last, on a strip of the same
    values, so that input and output of a low strip are in the cache of the
    processor. A network cannot be faster.

    Parameters
    ----------
    program : ConvProgram
        On the device that is measured.
    height, width : int
        Size of the image.
    rows : int
        Height of a strip.
    """
    filters = [branch.conv for layer in program.layers for branch in layer.branches if branch.conv]
    counts = Counter(one.weight.shape for one in filters)
    by_shape = {one.weight.shape: one for one in filters}
    strips = height / rows
    return sum(
        count * strips * _seconds(by_shape[shape], rows, width) for shape, count in counts.items()
    )


def _seconds(one: Conv, rows: int, width: int) -> float:
    shape = (1, one.weight.shape[1], rows, width)
    weight = one.weight
    seen = torch.rand(shape, device=weight.device, dtype=weight.dtype)
    seen = seen.to(memory_format=torch.channels_last)
    runs, repeats = _RUNS[seen.device.type]

    def convolve() -> None:
        for _ in range(repeats):
            F.conv2d(seen, weight, one.bias, padding=one.radius)
        synchronize(seen.device)

    convolve()  # chooses kernels
    return median(clock(convolve)[1] for _ in range(runs)) / repeats
