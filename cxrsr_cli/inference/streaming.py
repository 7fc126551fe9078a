"""Run a program over an image in strips, without computing any row twice.

Every layer keeps the last rows of its value, as many as the next strip needs. So
strips of any height need no overlap, and a strip's feature maps fit into the
processor's cache. Beyond the border, the image is reflected.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom

from cxrsr_cli.inference.self_ensemble import NUM_TRANSFORMS, average_over_transforms
from cxrsr_cli.networks.conv_program import IMAGE, Branch, ConvProgram, Layer
from cxrsr_cli.networks.layers import SuperResolutionNetwork
from cxrsr_cli.networks.resampling import upsample

_LARGEST_HEAP_BLOCK_BYTES = (32 << 20) - (64 << 10)
"""The largest block that raises glibc's threshold (DEFAULT_MMAP_THRESHOLD_MAX), less
its header."""


@dataclass(frozen=True, slots=True)
class RowRange:
    """Consecutive rows of a value.

    Attributes
    ----------
    start : int
        Number of the first row; 0 is the image's first, rows above it are negative.
    data : torch.Tensor
        ``(1, C, rows, columns)``.
    """

    start: int
    data: torch.Tensor

    @property
    def stop(self) -> int:
        """Number after the last row."""
        return self.start + self.data.shape[-2]

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Return rows `start` to `stop`.

        Raises
        ------
        IndexError
            If they are not all there.
        """
        if not self.start <= start <= stop <= self.stop:
            raise IndexError(f"rows {start} to {stop} of {self.start} to {self.stop}")
        return self.data[..., start - self.start : stop - self.start, :]


def stream(
    program: ConvProgram,
    image: torch.Tensor,
    *,
    rows: int,
    device: torch.device | None = None,
    on_rows_halved: Callable[[int], None] = lambda _: None,
) -> Iterator[torch.Tensor]:
    """Apply a program to an image, strip by strip.

    Parameters
    ----------
    program : ConvProgram
        On `device`.
    image : torch.Tensor
        ``(1, 1, H, W)`` on the CPU, image values mapped to about [0, 1].
    rows : int
        Rows of each layer that are computed at a time, 1 or more; at least one of the image.
    device : torch.device, optional
        Where it runs; the CPU by default.
    on_rows_halved : callable
        Called with the new number of rows when the device's memory was too small.
        Finished rows are kept, and nothing is computed again.

    Yields
    ------
    torch.Tensor
        Rows of the output, at most ``program.pixel_shuffle * rows``, and
        ``scale * W`` columns, in the program's precision on `device`. One below
        the other they are the output. Each belongs to whole rows of the image.

    Raises
    ------
    torch.OutOfMemoryError
        If the device's memory is too small for one row.
    """
    _keep_freed_memory()
    state = _StreamState(program, image, device or torch.device("cpu"))
    unit = program.pre_upscale
    rows = max(rows // unit, 1) * unit
    # Start so far above the image that even the first strips have no more rows.
    stop = -2 * unit * program.context_rows[IMAGE]
    while stop < state.height:
        following = min(stop + rows, state.height)
        try:
            made = state.advance(following)
        except torch.OutOfMemoryError:
            if rows // 2 < unit or rows // 2 % unit:
                raise
            rows //= 2
            on_rows_halved(rows)
            continue
        stop = following
        if made is not None:
            yield made


def _keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next strip.

    By default, glibc keeps twice the largest block of up to 32 MiB that was freed so
    far. Getting memory from the system for every feature map would take as long as
    its convolution.
    """
    torch.empty(_LARGEST_HEAP_BLOCK_BYTES, dtype=torch.uint8)


class _StreamState:
    """For every value of a program, how far it is computed, and its last rows."""

    def __init__(self, program: ConvProgram, image: torch.Tensor, device: torch.device) -> None:
        self._program = program
        padded = reflect_pad(image, program.halo).to(device)
        if program.pre_upscale > 1:
            padded = upsample(padded, program.pre_upscale)
        self.height, self._width = (side * program.pre_upscale for side in image.shape[-2:])
        halo, margin = program.halo * program.pre_upscale, program.margins[IMAGE]
        padded = padded[..., halo - margin : halo + self._width + margin]
        self._held: dict[int, RowRange] = {IMAGE: RowRange(-halo, padded)}
        self._done = [-rows for rows in program.context_rows]

    def advance(self, stop: int) -> torch.Tensor | None:
        """Compute the output down to a row, and return the new rows."""
        program = self._program
        for made, layer in enumerate(program.layers, 1):
            start, end = self._done[made], stop + program.context_rows[made]
            if end > start:
                self._held[made] = self._compute(made, layer, start, end)
                self._done[made] = end
                for source in {branch.source for branch in layer.branches}:
                    self._forget(source)
        output = self._held.get(len(program.layers))
        if output is None:
            return None
        shuffled = F.pixel_shuffle(output.data, program.pixel_shuffle)
        # Only now: if memory was too small for the shuffle, the caller tries again.
        del self._held[len(program.layers)]
        return shuffled

    def _compute(self, made: int, layer: Layer, start: int, stop: int) -> RowRange:
        """Add up a layer's branches, below the rows of its value that are kept."""
        branches = (self._branch(branch, made, start, stop) for branch in layer.branches)
        total, kept = next(branches), self._held.get(made)
        value, fresh = total, total
        if kept or not total.is_contiguous(memory_format=torch.channels_last):
            above = start - kept.start if kept else 0
            shape = (1, layer.channels, above + stop - start, total.shape[-1])
            value = torch.empty(
                shape, dtype=total.dtype, device=total.device, memory_format=torch.channels_last
            )
            fresh = value[..., above:, :]
            if kept:
                value[..., :above, :] = kept.data
            second = next(branches, None)
            if second is None:
                fresh.copy_(total)
            else:
                torch.add(total, second, out=fresh)
        for branch in branches:
            fresh.add_(branch)
        if layer.negative_slope is not None:
            F.leaky_relu_(fresh, layer.negative_slope)
        return RowRange(stop - value.shape[-2], value)

    def _branch(self, branch: Branch, made: int, start: int, stop: int) -> torch.Tensor:
        """Compute a branch for some rows and for the columns of the layer's value."""
        margins, radius = self._program.margins, branch.radius
        rows = self._held[branch.source].rows(start - radius, stop + radius)
        if branch.conv:
            weight = branch.conv.weight
            rows = F.conv2d(rows.to(weight.dtype), weight, branch.conv.bias, padding=(0, radius))
        beyond = margins[branch.source] - margins[made]
        return rows[..., beyond : rows.shape[-1] - beyond]

    def _forget(self, value: int) -> None:
        """Free the rows that no layer needs again."""
        held = self._held[value]
        needed = min(
            self._done[consumer] - radius for consumer, radius in self._program.consumers[value]
        )
        if value == IMAGE or needed <= held.start:
            return
        if needed >= held.stop:
            del self._held[value]
        else:
            self._held[value] = RowRange(needed, held.rows(needed, held.stop).clone())


def reflect_pad(image: torch.Tensor, margin: int) -> torch.Tensor:
    """Pad an image by reflection about its border pixels, repeated for a large margin.

    Parameters
    ----------
    image : torch.Tensor
        ``(N, C, H, W)``.
    margin : int
        Pixels added on each side; may exceed the image.

    Returns
    -------
    torch.Tensor
        ``(N, C, H + 2 * margin, W + 2 * margin)``.
    """
    while margin > 0:
        step_y, step_x = (min(margin, side - 1) for side in image.shape[-2:])
        if step_y == step_x == margin:
            return F.pad(image, (margin,) * 4, mode="reflect")
        if not step_y or not step_x:  # a single row or column has no neighbour to reflect
            return F.pad(image, (margin,) * 4, mode="replicate")
        step = min(step_y, step_x)
        image = F.pad(image, (step,) * 4, mode="reflect")
        margin -= step
    return image


def residuals(
    network: SuperResolutionNetwork,
    program: ConvProgram | None,
    image: torch.Tensor,
    *,
    rows: int,
    device: torch.device,
    noise_share: float = 1.0,
    self_ensemble: bool = False,
    advance: Callable[[float], None] = lambda _: None,
    on_rows_halved: Callable[[int], None] = lambda _: None,
) -> Iterator[torch.Tensor]:
    """Run a network over an image.

    Parameters
    ----------
    network : SuperResolutionNetwork
        Run on the whole image at once if there is no `program`.
    program : ConvProgram or None
        The compiled network, for `noise_share`.
    image : torch.Tensor
        ``(1, 1, H, W)`` network values, on the CPU.
    rows, device, on_rows_halved
        As in `stream`.
    noise_share : float
        Share of the input's noise that the output keeps.
    self_ensemble : bool
        Average over the eight flips and rotations; the whole image at once.
    advance : callable
        Called with each share that is done. The shares add up to 1.

    Yields
    ------
    torch.Tensor
        ``(1, 1, scale * h, scale * W)`` float32 on `device`: strips from top to bottom.
    """

    def strips(one: torch.Tensor, share: float) -> Iterator[torch.Tensor]:
        height = one.shape[-2] * network.architecture.scale
        if program:
            parts = stream(program, one, rows=rows, device=device, on_rows_halved=on_rows_halved)
        else:
            parts = iter([_whole(network, one, device, noise_share)])
        for part in _in_float32(parts):
            advance(share * part.shape[-2] / height)
            yield part.float()

    if self_ensemble:
        yield average_over_transforms(
            lambda one: torch.cat(list(strips(one, 1 / NUM_TRANSFORMS)), -2)
        )(image)
    else:
        yield from strips(image, 1.0)


def _whole(
    network: SuperResolutionNetwork, image: torch.Tensor, device: torch.device, noise_share: float
) -> torch.Tensor:
    halo, scale = network.architecture.halo, network.architecture.scale
    seen = reflect_pad(image, halo).to(device, memory_format=torch.channels_last)
    made: torch.Tensor = network(seen, noise_share)
    border, (height, width) = halo * scale, (side * scale for side in image.shape[-2:])
    return made[..., border : border + height, border : border + width]


def _in_float32(parts: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Compute each part in true float32; on GPUs, PyTorch's default is TF32."""
    while True:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            part = next(parts, None)
        if part is None:
            return
        yield part
