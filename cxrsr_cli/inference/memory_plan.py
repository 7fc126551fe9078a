"""How much of an image is worked on at a time, and the memory that it takes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from cxrsr_cli.dicom.transfer_syntax import NATIVE_WRITE_FACTOR
from cxrsr_cli.errors import MemoryLimitError
from cxrsr_cli.inference.data_consistency import MARGIN
from cxrsr_cli.networks.config import NetworkConfig
from cxrsr_cli.networks.conv_program import IMAGE, ConvProgram

DEFAULT_MEMORY_BYTES = 2 << 30
"""Bytes beyond the import of torch, and on a GPU of its own memory."""

_CACHED = 4 << 20
"""Bytes of a feature map that a processor's cache holds beside a few others."""
_MAX_ROWS = 64
_WINDOW = (64, 512)
"""Input rows and columns that are made consistent at a time."""

_FLOAT = 4
_STANDING = 64 << 20
"""Bytes that any job takes: packed weights, the heap's gaps, buffers of libraries."""
_PER_INPUT_PIXEL = 18
"""Bytes: the file, its stored values, and what network and projection see of them."""
_WINDOWS = 6
"""Images the size of a window that the projection holds at once."""
_SIDES = 3
"""Whole residuals that a self-ensemble holds: the sum, one turned, one turned back."""
_WHOLE_MAPS = 8
"""Feature maps that a network which sees the whole image holds at once."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How an image goes through a network and is made consistent.

    Attributes
    ----------
    rows : int
        Rows of every feature map computed at a time.
    window : tuple of int
        Input rows and columns made consistent at a time.
    overlap : float
        Work beyond the image's border, as a share of the work inside.
    peak_bytes : int
        Memory predicted for the whole job on the image.
    """

    rows: int
    window: tuple[int, int]
    overlap: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryPlanner:
    """Makes plans for one network.

    A plan depends on nothing but the image's size and what stands here, so that
    the same image has the same output on every machine of a kind.

    Attributes
    ----------
    architecture : Architecture
        The network's.
    program : Program or None
        The network compiled; None for one that must see the whole image.
    memory : int or None
        Bytes that a job may take; None for `DEFAULT_MEMORY_BYTES`, which is then
        exceeded where rows can stream and no plan keeps to it.
    accelerated : bool
        Whether the maps are in the memory of a GPU, which wants large ones.
    ensemble : bool
        Whether the network's answers from all sides are kept.
    """

    architecture: NetworkConfig
    program: ConvProgram | None
    memory: int | None = None
    on_gpu: bool = False
    ensemble: bool = False

    def plan(
        self,
        height: int,
        width: int,
        itemsize: int,
        frames: int = 1,
        written: float = NATIVE_WRITE_FACTOR,
    ) -> MemoryPlan:
        """Plan for one image.

        Parameters
        ----------
        height, width : int
            Of the input.
        itemsize : int
            Bytes of a stored value.
        frames : int
            How many the image has; they are worked on one after the other.
        written : float
            How many times itself an output takes to be written, beside itself.

        Raises
        ------
        TooLargeError
            If the image cannot be done in the memory that was given.
        """
        allowed = self.memory or DEFAULT_MEMORY_BYTES
        area = height * width * frames
        output = area * self.architecture.scale**2 * itemsize
        kept = _STANDING + area * _PER_INPUT_PIXEL + output
        overlap = self._overlap(height, width)
        plans = [
            MemoryPlan(rows, window, overlap, self._working_bytes(height, width, rows, window))
            for rows, window in self._candidate_plans(height, width)
        ]
        if not self.on_gpu:
            plans = [replace(plan, peak_bytes=ceil(kept + plan.peak_bytes)) for plan in plans]
        chosen = next((plan for plan in plans if plan.peak_bytes <= allowed), None)
        frugal = min(plans, key=lambda plan: plan.peak_bytes)
        if chosen is None:
            # Beside a large output little is saved; a GPU holds none, and has no more.
            chosen = frugal if self.on_gpu or not self.program or self.memory else plans[0]
        # What writing takes decides nothing: the same output may be written in many ways.
        writing = 0 if self.on_gpu else ceil(kept + written * output)
        chosen = replace(chosen, peak_bytes=max(chosen.peak_bytes, writing))
        if chosen.peak_bytes > allowed and (self.memory or not self.program):
            raise MemoryLimitError(
                f"an image of {width}x{height} needs {_mebibytes(chosen.peak_bytes)} of memory, "
                f"more than the {_mebibytes(allowed)} that it may take; see --memory"
            )
        return chosen

    def _candidate_plans(self, height: int, width: int) -> Iterator[tuple[int, tuple[int, int]]]:
        """Yield rows and windows, the fastest first, the most frugal last."""
        rows = self._preferred_rows(height, width)
        window = (height, width) if self.on_gpu else _WINDOW
        window = (min(window[0], height), min(window[1], width))
        yield rows, window
        for fewest, lowest in ((_MAX_ROWS, _WINDOW[0]), (1, MARGIN)):
            while self.program and rows > fewest:
                rows //= 2
                yield rows, window
            while window[0] > lowest:
                window = (window[0] // 2, window[1])
                yield rows, window

    def _preferred_rows(self, height: int, width: int) -> int:
        program = self.program
        if program is None or self.on_gpu:
            return height
        hidden = program.layers[:-1] or program.layers
        widest = max(layer.channels * layer.dtype.itemsize for layer in hidden)
        row = widest * (width * program.pre_upscale + 2 * program.context_rows[IMAGE])
        return min(max(_CACHED // row, 4), _MAX_ROWS)

    def _overlap(self, height: int, width: int) -> float:
        program = self.program
        if program is None:
            halo = 2 * self.architecture.halo
            return (height + halo) * (width + halo) / (height * width) - 1
        height, width = height * program.pre_upscale, width * program.pre_upscale
        done = inside = 0
        for made, layer in enumerate(program.layers, 1):
            filters = [branch.conv for branch in layer.branches if branch.conv]
            work = sum(one.weight.numel() for one in filters)
            tall, wide = height + 2 * program.context_rows[made], width + 2 * program.margins[made]
            done += work * tall * wide
            inside += work * height * width
        return done / inside - 1

    def _working_bytes(self, height: int, width: int, rows: int, window: tuple[int, int]) -> int:
        """Return what network and projection hold beside input and output."""
        area, pixel = height * width, self.architecture.scale**2 * _FLOAT
        network = self._network_bytes(height, width, rows)
        tall = min(window[0] + 2 * MARGIN, height)
        wide = min(window[1] + 2 * MARGIN, width)
        residual = 2 * (tall + rows) * width * pixel
        if self.ensemble:
            residual += _SIDES * area * pixel
        projection = (_WINDOWS * tall * wide + 2 * window[0] * width) * pixel
        if self.on_gpu:
            return network + residual + projection
        return residual + max(network, projection)

    def _network_bytes(self, height: int, width: int, rows: int) -> int:
        if self.program:
            return streaming_peak_bytes(self.program, height, width, rows)
        halo = 2 * self.architecture.halo
        widest = max(one.outputs for one in self.architecture.convolutions())
        return _WHOLE_MAPS * widest * _FLOAT * (height + halo) * (width + halo)


def streaming_peak_bytes(program: ConvProgram, height: int, width: int, rows: int) -> int:
    """Return the most that values of a program hold while rows stream through it.

    Parameters
    ----------
    program : Program
        The network.
    height, width : int
        Of the input.
    rows : int
        Computed at a time.

    Returns
    -------
    int
        Bytes, of all values that are held and of the terms of the layer in work.
    """
    height, width = height * program.pre_upscale, width * program.pre_upscale
    fresh = min(rows, height + 2 * program.context_rows[IMAGE])
    line, kept = [0], [0]
    for made, layer in enumerate(program.layers, 1):
        columns = width + 2 * program.margins[made]
        line.append(layer.channels * layer.dtype.itemsize * columns)
        readers = program.consumers[made]
        first = min((program.context_rows[each] - radius for each, radius in readers), default=0)
        kept.append(program.context_rows[made] - first if readers else 0)
    held = sum(size * count for size, count in zip(line, kept, strict=True))
    last_reader = [max((each for each, _ in readers), default=0) for readers in program.consumers]
    image = (
        (height + 2 * program.context_rows[IMAGE])
        * (width + 2 * program.context_rows[IMAGE])
        * _FLOAT
    )
    most = 0
    for made, layer in enumerate(program.layers, 1):
        held += line[made] * fresh
        beside = line[made] * fresh * min(len(layer.branches), 2)
        most = max(most, held + beside)
        for source in {branch.source for branch in layer.branches} - {IMAGE}:
            if last_reader[source] == made:
                held -= line[source] * fresh
    # The output is shuffled, and handed on.
    return image + max(most, held + 2 * line[-1] * fresh)


def _mebibytes(count: int) -> str:
    return f"{ceil(count / 2**20)} MiB"
