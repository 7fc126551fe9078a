"""The network's residual of an image, as rows that are held only while they are asked for."""

from collections.abc import Callable, Iterator

import torch

from cxrsr_cli.restore.ensemble import NUM_TRANSFORMS, self_ensemble
from cxrsr_cli.restore.parts import SuperResolutionNetwork
from cxrsr_cli.restore.program import ConvProgram
from cxrsr_cli.restore.reflection import reflect_pad
from cxrsr_cli.restore.streaming import RowRange, stream


def residuals(
    network: SuperResolutionNetwork,
    program: ConvProgram | None,
    image: torch.Tensor,
    *,
    rows: int,
    device: torch.device,
    ensemble: bool = False,
    advance: Callable[[float], None] = lambda _: None,
    narrowed: Callable[[int], None] = lambda _: None,
) -> Iterator[torch.Tensor]:
    """Run a network over an image.

    Parameters
    ----------
    network : SuperResolver
        Used only if there is no `program`, and then on the whole image at once.
    program : Program or None
        The network compiled.
    image : torch.Tensor
        ``(1, 1, H, W)`` network values, on the CPU.
    rows, device, narrowed
        As in `stream`.
    ensemble : bool
        Mean over the eight flips and rotations; the whole image at once.
    advance : callable
        Told of progress; the shares add up to 1.

    Yields
    ------
    torch.Tensor
        ``(1, 1, scale * h, scale * W)`` float32 on `device`: the rows, in order.
    """

    def strips(one: torch.Tensor, share: float) -> Iterator[torch.Tensor]:
        height = one.shape[-2] * network.architecture.scale
        if program:
            parts = stream(program, one, rows=rows, device=device, narrowed=narrowed)
        else:
            parts = iter([_whole(network, one, device)])
        for part in _in_float32(parts):
            advance(share * part.shape[-2] / height)
            yield part.float()

    if ensemble:
        yield self_ensemble(lambda one: torch.cat(list(strips(one, 1 / NUM_TRANSFORMS)), -2))(image)
    else:
        yield from strips(image, 1.0)


class RowBuffer:
    """Rows of a residual as they come.

    Parameters
    ----------
    parts : iterator of torch.Tensor
        As `residuals` yields.
    scale : int
        Output rows for each input row.
    """

    def __init__(self, parts: Iterator[torch.Tensor], scale: int) -> None:
        self._parts, self._scale = parts, scale
        self._held: RowRange | None = None

    def rows(self, first: int, last: int) -> torch.Tensor:
        """Return those of some input rows; none above them can be asked for again."""
        first, last = first * self._scale, last * self._scale
        held = self._held
        kept = [] if held is None else [held.rows(first, held.stop)]
        stop = held.stop if held else 0
        while stop < last:
            kept.append(next(self._parts))
            stop += kept[-1].shape[-2]
        self._held = RowRange(first, torch.cat(kept, -2) if len(kept) > 1 else kept[0])
        return self._held.rows(first, last)


def _whole(network: SuperResolutionNetwork, image: torch.Tensor, device: torch.device) -> torch.Tensor:
    halo, scale = network.architecture.halo, network.architecture.scale
    seen = reflect_pad(image, halo).to(device, memory_format=torch.channels_last)
    made: torch.Tensor = network(seen)
    border, (height, width) = halo * scale, (side * scale for side in image.shape[-2:])
    return made[..., border : border + height, border : border + width]


def _in_float32(parts: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Compute each part without TF32, PyTorch's default on GPUs, which is not float32."""
    while True:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            part = next(parts, None)
        if part is None:
            return
        yield part
