"""The height of strips, and the memory that they take."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from cxrsr_cli.dicom.transfer_syntax import NATIVE_WRITE_FACTOR
from cxrsr_cli.errors import MemoryLimitError
from cxrsr_cli.inference.assemble import MAX_ROWS
from cxrsr_cli.inference.noise_curve import MAX_NOISE_ROWS
from cxrsr_cli.networks.config import NetworkConfig
from cxrsr_cli.networks.conv_program import IMAGE, ConvProgram

DEFAULT_MEMORY_BYTES = 2 << 30
"""Beside what the import of torch takes; for a GPU, of its own memory."""

_CACHED_MAP_BYTES = 4 << 20
"""Of a feature map that a processor's cache holds together with a few others."""
_FLOAT_BYTES = 4
_BASE_BYTES = 64 << 20
"""What any job takes: packed weights, gaps in the heap, buffers of libraries."""
_BYTES_PER_INPUT_PIXEL = 18
"""The file, its stored values, and the network's input in stored and in network values."""
_ASSEMBLY_MAPS = 6
"""Images of a strip's size that image skip and agreement hold at once."""
_NOISE_BYTES_PER_PIXEL = 250
"""What the estimate of the noise holds for each pixel of a strip, on the CPU."""
_ENSEMBLE_MAPS = 3
"""Whole residuals that a self-ensemble holds: the sum, one turned, one turned back."""
_WHOLE_IMAGE_MAPS = 8
"""Feature maps that a network which sees the whole image holds at once."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How an image goes through a network.

    Attributes
    ----------
    rows : int
        Rows of every feature map computed at a time. They make a strip of the output.
    overlap : float
        Work beyond the image's border, as a share of the work inside.
    peak_bytes : int
        Memory predicted for the whole job.
    """

    rows: int
    overlap: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryPlanner:
    """Makes plans for one network.

    A plan depends only on the image's size and these attributes, so that the same
    image has the same output on every machine of a kind.

    Attributes
    ----------
    architecture : NetworkConfig
        The network's.
    program : ConvProgram or None
        The compiled network; None for one that must see the whole image.
    memory : int or None
        Bytes that a job may take. None for `DEFAULT_MEMORY_BYTES`, which a job may
        exceed if rows can stream and no plan takes less.
    on_gpu : bool
        Whether the feature maps are in the memory of a GPU, which is fast with large
        ones.
    self_ensemble : bool
        Whether the whole residuals of a self-ensemble are held.
    """

    architecture: NetworkConfig
    program: ConvProgram | None
    memory: int | None = None
    on_gpu: bool = False
    self_ensemble: bool = False

    def plan(
        self,
        height: int,
        width: int,
        itemsize: int,
        frames: int = 1,
        write_memory_factor: float = NATIVE_WRITE_FACTOR,
    ) -> MemoryPlan:
        """Plan for one image.

        Parameters
        ----------
        height, width : int
            Of the input.
        itemsize : int
            Bytes of a stored value.
        frames : int
            Number of frames. They are upscaled one after the other.
        write_memory_factor : float
            Memory for writing an output, as a multiple of the output, which is held
            beside it.

        Raises
        ------
        MemoryLimitError
            If the image needs more memory than it may take.
        """
        allowed = self.memory or DEFAULT_MEMORY_BYTES
        area = height * width * frames
        output = area * self.architecture.scale**2 * itemsize
        held = _BASE_BYTES + area * _BYTES_PER_INPUT_PIXEL + output
        overlap = self._overlap(height, width)
        plans = [
            MemoryPlan(rows, overlap, self._working_bytes(height, width, rows))
            for rows in self._candidate_rows(height, width)
        ]
        if not self.on_gpu:
            plans = [replace(plan, peak_bytes=ceil(held + plan.peak_bytes)) for plan in plans]
        chosen = next((plan for plan in plans if plan.peak_bytes <= allowed), None)
        smallest = min(plans, key=lambda plan: plan.peak_bytes)
        if chosen is None:
            # Small plans save little beside a large output. A GPU does not hold the output.
            chosen = smallest if self.on_gpu or not self.program or self.memory else plans[0]
        # Writing does not decide the plan: the transfer syntax must not change the pixels.
        writing = 0 if self.on_gpu else ceil(held + write_memory_factor * output)
        chosen = replace(chosen, peak_bytes=max(chosen.peak_bytes, writing))
        if chosen.peak_bytes > allowed and (self.memory or not self.program):
            raise MemoryLimitError(
                f"an image of {width}x{height} needs {_mebibytes(chosen.peak_bytes)} of memory, "
                f"more than the {_mebibytes(allowed)} that it may take; see --memory"
            )
        return chosen

    def _candidate_rows(self, height: int, width: int) -> Iterator[int]:
        """Yield numbers of rows, from the fastest to the smallest."""
        rows = self._preferred_rows(height, width)
        yield rows
        while self.program and rows > 1:
            rows //= 2
            yield rows

    def _preferred_rows(self, height: int, width: int) -> int:
        program = self.program
        if program is None or self.on_gpu:
            return height
        hidden = program.layers[:-1] or program.layers
        widest = max(layer.channels * layer.dtype.itemsize for layer in hidden)
        row_bytes = widest * (width * program.pre_upscale + 2 * program.context_rows[IMAGE])
        return min(max(_CACHED_MAP_BYTES // row_bytes, 4), MAX_ROWS)

    def _overlap(self, height: int, width: int) -> float:
        program = self.program
        if program is None:
            halo = 2 * self.architecture.halo
            return (height + halo) * (width + halo) / (height * width) - 1
        height, width = height * program.pre_upscale, width * program.pre_upscale
        total = inside = 0
        for made, layer in enumerate(program.layers, 1):
            macs = sum(branch.conv.weight.numel() for branch in layer.branches if branch.conv)
            rows, columns = (
                height + 2 * program.context_rows[made],
                width + 2 * program.margins[made],
            )
            total += macs * rows * columns
            inside += macs * height * width
        return total / inside - 1

    def _working_bytes(self, height: int, width: int, rows: int) -> int:
        """Return what network and assembly hold beside input and output."""
        pixel = self.architecture.scale**2 * _FLOAT_BYTES
        network = self._network_bytes(height, width, rows)
        residual = rows * width * pixel
        if self.self_ensemble:
            residual += _ENSEMBLE_MAPS * height * width * pixel
        elif not self.program:
            residual += height * width * pixel
        assembly = _ASSEMBLY_MAPS * min(MAX_ROWS, rows) * width * pixel
        if self.on_gpu:
            return network + residual + assembly
        noise = min(height, MAX_NOISE_ROWS) * width * _NOISE_BYTES_PER_PIXEL
        return max(residual + max(network, assembly), noise)

    def _network_bytes(self, height: int, width: int, rows: int) -> int:
        if self.program:
            return streaming_peak_bytes(self.program, height, width, rows)
        halo = 2 * self.architecture.halo
        widest = max(conv.outputs for conv in self.architecture.convolutions())
        return _WHOLE_IMAGE_MAPS * widest * _FLOAT_BYTES * (height + halo) * (width + halo)


def streaming_peak_bytes(program: ConvProgram, height: int, width: int, rows: int) -> int:
    """Return the most that values of a program hold while rows stream through it.

    Parameters
    ----------
    program : ConvProgram
        The network.
    height, width : int
        Of the input.
    rows : int
        Computed at a time.

    Returns
    -------
    int
        Bytes, of all values that are held and of the branches of the current layer.
    """
    height, width = height * program.pre_upscale, width * program.pre_upscale
    context = program.context_rows
    new_rows = min(rows, height + 2 * context[IMAGE])
    row_bytes, kept_rows = [0], [0]
    for made, layer in enumerate(program.layers, 1):
        columns = width + 2 * program.margins[made]
        row_bytes.append(layer.channels * layer.dtype.itemsize * columns)
        consumers = program.consumers[made]
        first = min((context[each] - radius for each, radius in consumers), default=0)
        kept_rows.append(context[made] - first if consumers else 0)
    held = sum(size * count for size, count in zip(row_bytes, kept_rows, strict=True))
    last_consumer = [max((each for each, _ in pairs), default=0) for pairs in program.consumers]
    image = (height + 2 * context[IMAGE]) * (width + 2 * context[IMAGE]) * _FLOAT_BYTES
    peak = 0
    for made, layer in enumerate(program.layers, 1):
        new_bytes = row_bytes[made] * new_rows
        held += new_bytes
        peak = max(peak, held + new_bytes * min(len(layer.branches), 2))
        for source in {branch.source for branch in layer.branches} - {IMAGE}:
            if last_consumer[source] == made:
                held -= row_bytes[source] * new_rows
    # The PixelShuffle copies the output.
    return image + max(peak, held + 2 * row_bytes[-1] * new_rows)


def _mebibytes(count: int) -> str:
    return f"{ceil(count / 2**20)} MiB"
