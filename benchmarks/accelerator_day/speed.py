"""The speed of the networks on a device, the most important measurements first."""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import torch

from benchmarks.accelerator_day.results import Record, Results
from benchmarks.baselines_speed import NETWORKS, rival_architecture
from benchmarks.conv_ceiling import ceiling_seconds
from benchmarks.precision import matrix_peak
from benchmarks.synthetic_radiographs import mosaic, write
from benchmarks.timing import Budget, clock, synchronize
from cxrsr_cli.evaluation.resource_usage import measure_usage
from cxrsr_cli.evaluation.tables import Table
from cxrsr_cli.inference.device import choose_device
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.inference.streaming import residuals, stream
from cxrsr_cli.networks.config import Precision
from cxrsr_cli.networks.conv_program import ConvProgram
from cxrsr_cli.networks.layers import build_network
from cxrsr_cli.networks.model_files import DEFAULT_MODEL, find_model
from cxrsr_cli.options import Job, UpscaleOptions
from cxrsr_cli.upscaler import Upscaler

STAGE = "speed"
GOAL_SECONDS = 1.0
"""For the network at x4 on the goal's image."""
GOAL_RATIO = 1.2
"""Time of the network to that of its convolutions alone."""
_SHARE_OF_MEMORY = 0.8
"""Of the device, for the largest plan."""
_ADD, _ACTIVATE = 3, 2
"""Maps that are read and written by an addition and by an activation."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is measured; smaller in a rehearsal.

    Attributes
    ----------
    goal : tuple of int
        Rows and columns of the goal's image.
    others : tuple of tuple of int
        Rows and columns of other images.
    rivals : tuple of str
        Networks of the study of rivals.
    rival_side : int
        Rows and columns of the image for the rivals.
    square : int
        Rows and columns of the matrices.
    copied_bytes : int
        Size of the copy.
    peak_runs : int
        Runs of a matrix product and of a copy. During the first ones the clock of a GPU rises.
    runs : int
        Runs of each other measurement; the first one more warms up.
    """

    goal: tuple[int, int] = (3000, 2500)
    others: tuple[tuple[int, int], ...] = ((1024, 1024), (4096, 4096))
    rivals: tuple[str, ...] = NETWORKS
    rival_side: int = 1024
    square: int = 8192
    copied_bytes: int = 4 << 30
    peak_runs: int = 30
    runs: int = 3


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How a network computes.

    Attributes
    ----------
    name : str
        For tables.
    precision : Precision
        Of weights and values.
    tf32 : bool
        Whether convolutions in float32 may use TF32, which `cxrsr upscale` does not allow.
    """

    name: str
    precision: Precision
    tf32: bool = False


FLOAT32 = Arithmetic("fp32", Precision.FP32)
BFLOAT16 = Arithmetic("bf16", Precision.BF16)
ON_CPU = (FLOAT32,)
"""A rehearsal; bfloat16 is slow on most CPUs."""
ON_GPU = (
    FLOAT32,
    Arithmetic("tf32", Precision.FP32, tf32=True),
    BFLOAT16,
    Arithmetic("fp16", Precision.FP16),
)


@dataclass(frozen=True, slots=True)
class Task:
    """A measurement that adds records when it is run."""

    name: str
    run: Callable[[], None]


def measure_speed(results: Results, device_name: str, deadline: float, workload: Workload) -> bool:
    """Measure until all is measured or the time is over.

    Parameters
    ----------
    results : Results
        Gets a record for each measurement.
    device_name : str
        As `choose_device` takes it.
    deadline : float
        Time of `time.monotonic` after which no measurement is started.
    workload : Workload
        What is measured.

    Returns
    -------
    bool
        Whether all was measured.
    """
    bench = _Bench(results, choose_device(device_name), workload)
    tasks, complete = list(bench.tasks()), True
    for number, task in enumerate(tasks):
        if time.monotonic() > deadline:
            results.add(STAGE, what="left out", tasks=[each.name for each in tasks[number:]])
            return False
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()  # the next measurement may need all of the memory
        try:
            task.run()
        # A measurement may need more memory than the device has, or an operation that it lacks.
        except Exception as error:
            text = f"{type(error).__name__}: {error}"[:500]
            results.add(STAGE, what="failed", task=task.name, error=text)
            complete = False
    return complete


@dataclass(frozen=True, slots=True)
class _Bench:
    results: Results
    device: torch.device
    workload: Workload

    def tasks(self) -> Iterator[Task]:
        """Yield the measurements, the most important first."""
        sizes = (self.workload.goal, *self.workload.others)
        memory = self._whole_memory()
        yield Task("peaks", self._peaks)
        for name in self._arithmetics():
            yield self._network_task(4, self.workload.goal, name, None, bare=True)
        yield Task("end to end x4", partial(self._end_to_end, 4))
        if memory:
            for name in self._arithmetics():
                yield self._network_task(4, self.workload.goal, name, memory, bare=True)
        for network in self.workload.rivals:
            yield Task(network, partial(self._rival, network))
        yield Task("end to end x2", partial(self._end_to_end, 2))
        for size in sizes:
            for scale in (4, 2, 8):
                for name in self._arithmetics():
                    if (scale, size) != (4, self.workload.goal):
                        yield self._network_task(scale, size, name, memory)

    def _arithmetics(self) -> tuple[Arithmetic, ...]:
        return ON_CPU if self.device.type == "cpu" else ON_GPU

    def _whole_memory(self) -> int | None:
        if self.device.type != "cuda":
            return None
        total = torch.cuda.get_device_properties(self.device).total_memory
        return int(_SHARE_OF_MEMORY * total)

    def _peaks(self) -> None:
        square, runs = self.workload.square, self.workload.peak_runs
        for dtype in (torch.bfloat16, torch.float32):
            rate = matrix_peak(self.device, dtype, square, runs)
            self.results.add(STAGE, what="matrix product", dtype=str(dtype), flops=rate)
        source = torch.empty(self.workload.copied_bytes, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)

        def copy() -> None:
            target.copy_(source)
            synchronize(self.device)

        copy()
        seconds = min(clock(copy)[1] for _ in range(runs))
        rate = 2 * source.numel() / seconds
        self.results.add(STAGE, what="copy", bytes_per_second=rate)

    def _network_task(
        self,
        scale: int,
        size: tuple[int, int],
        arithmetic: Arithmetic,
        memory: int | None,
        *,
        bare: bool = False,
    ) -> Task:
        name = f"{DEFAULT_MODEL} x{scale} {size[0]}x{size[1]} {arithmetic.name}"
        return Task(name, partial(self._network, scale, size, arithmetic, memory, bare=bare))

    def _network(
        self,
        scale: int,
        size: tuple[int, int],
        arithmetic: Arithmetic,
        memory: int | None,
        *,
        bare: bool,
    ) -> None:
        path = find_model(DEFAULT_MODEL, scale).path
        predictor = Predictor.load(
            path, device=str(self.device), precision=arithmetic.precision, memory=memory
        )
        record = self._time(predictor, size, arithmetic)
        if bare and predictor.program:
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=arithmetic.tf32):
                record["bare_seconds"] = ceiling_seconds(predictor.program, *size, record["rows"])
            record["moved_bytes"] = moved_bytes(predictor.program) * size[0] * size[1]
        self.results.add(STAGE, what="network", model=DEFAULT_MODEL, **record)

    def _rival(self, name: str) -> None:
        architecture = rival_architecture(name)
        for arithmetic in (each for each in self._arithmetics() if each in (FLOAT32, BFLOAT16)):
            predictor = Predictor.from_network(
                build_network(architecture).eval(),
                self.device,
                arithmetic.precision,
                self._whole_memory() or 1 << 40,
            )
            size = (self.workload.rival_side, self.workload.rival_side)
            record = self._time(predictor, size, arithmetic)
            self.results.add(STAGE, what="rival", model=name, **record)

    def _time(self, predictor: Predictor, size: tuple[int, int], arithmetic: Arithmetic) -> Record:
        low = torch.from_numpy(mosaic(*size).astype("float32"))[None, None] / 4095
        rows = predictor.plan(*size).rows
        run = partial(run_network, predictor, low, rows, tf32=arithmetic.tf32)
        run()
        with measure_usage(self.device) as usage:
            seconds = [clock(run)[1] for _ in range(self.workload.runs)]
        return {
            "scale": predictor.architecture.scale,
            "height": size[0],
            "width": size[1],
            "arithmetic": arithmetic.name,
            "rows": rows,
            "macs": predictor.architecture.complexity.macs,
            "seconds": seconds,
            "peak_bytes": usage.peak_bytes,
        }

    def _end_to_end(self, scale: int) -> None:
        height, width = self.workload.goal
        options = UpscaleOptions(device=str(self.device), overwrite=True)
        upscaler = Upscaler.load(find_model(DEFAULT_MODEL, scale), options)
        with tempfile.TemporaryDirectory() as folder:
            job = Job(write(Path(folder) / "in.dcm", height, width), Path(folder) / "out.dcm")
            Budget.of(upscaler, job)
            budgets = [Budget.of(upscaler, job) for _ in range(self.workload.runs)]
        middle = sorted(budgets, key=lambda each: each.total)[len(budgets) // 2]
        self.results.add(
            STAGE,
            what="end to end",
            model=DEFAULT_MODEL,
            scale=scale,
            height=height,
            width=width,
            total=middle.total,
            **asdict(middle),
        )


@torch.inference_mode()
def run_network(predictor: Predictor, low: torch.Tensor, rows: int, *, tf32: bool) -> None:
    """Run a network over an image on the CPU, wait for it, and drop what it makes."""
    program, device = predictor.program, predictor.device
    if program and tf32:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
            for _ in stream(program, low, rows=rows, device=device):
                pass
    else:
        for _ in residuals(predictor.network, program, low, rows=rows, device=device):
            pass
    synchronize(device)


def moved_bytes(program: ConvProgram) -> int:
    """Return the bytes for each pixel that the program reads and writes if nothing is cached."""
    total = 0
    channels = [1, *(layer.channels for layer in program.layers)]
    for layer in program.layers:
        maps = _ADD * layer.channels * (len(layer.branches) - 1)
        maps += _ACTIVATE * layer.channels * (layer.negative_slope is not None)
        for branch in layer.branches:
            maps += (channels[branch.source] + layer.channels) * (branch.conv is not None)
        total += maps * layer.dtype.itemsize
    return total * program.pre_upscale**2


def report(records: list[Record]) -> str:
    """Make the tables of the records of `measure_speed`, and say whether the goals are met."""
    of = {what: [each for each in records if each.get("what") == what] for what in _WHAT}
    peaks = {each["dtype"]: each["flops"] for each in of["matrix product"]}
    bf16_peak = peaks.get(str(torch.bfloat16))
    copy = of["copy"][-1]["bytes_per_second"] if of["copy"] else None
    lines = [f"Matrix product, {name}: {rate / 1e12:.2f} TFLOP/s" for name, rate in peaks.items()]
    lines += [f"Copy: {copy / 1e12:.3f} TB/s, read and written"] if copy else []
    rows = [_network_row(each, bf16_peak, copy) for each in (*of["network"], *of["rival"])]
    titles = ["network", "input", "arithmetic", "rows", "s", "MP/s", "MiB"]
    titles += ["to convolutions", "of bf16 product", "of copy"]
    lines += ["", _table(titles, rows, 3)] if rows else []
    titles = ["scale", "total s", "read", "network", "assembly", "rest", "write", "read-back"]
    parts = ("total", "read", "network", "assembly", "rest", "write", "read_back")
    rows = [
        [f"x{each['scale']}", *(f"{each[part]:.3f}" for part in parts)] for each in of["end to end"]
    ]
    lines += ["", _table(titles, rows, 1)] if rows else []
    lines += ["", *_goals(of["network"])]
    lines += [f"failed: {each['task']}: {each['error']}" for each in of["failed"]]
    lines += [f"no time for: {', '.join(each['tasks'])}" for each in of["left out"]]
    return "\n".join(lines)


_WHAT = ("matrix product", "copy", "network", "rival", "end to end", "failed", "left out")


def _network_row(record: Record, bf16_peak: float | None, copy: float | None) -> list[str]:
    seconds, pixels = median(record["seconds"]), record["height"] * record["width"]
    work, bare, moved = (
        2 * record["macs"] * pixels,
        *(record.get(key) for key in ("bare_seconds", "moved_bytes")),
    )
    peak = record["peak_bytes"]
    return [
        f"`{record['model']}` x{record['scale']}",
        f"{record['height']}x{record['width']}",
        record["arithmetic"],
        str(record["rows"]),
        f"{seconds:.4f}",
        f"{pixels / 1e6 / seconds:.2f}",
        "" if peak is None else f"{peak / 2**20:.0f}",
        f"{seconds / bare:.2f}" if bare else "",
        f"{100 * work / seconds / bf16_peak:.1f} %" if bf16_peak else "",
        f"{100 * moved / seconds / copy:.1f} %" if moved and copy else "",
    ]


def _goals(networks: list[Record]) -> Iterator[str]:
    timed = [each for each in networks if each.get("bare_seconds")]
    if not timed:
        yield "Goals: not measured."
        return
    best = min(timed, key=lambda each: median(each["seconds"]))
    exact = [each for each in timed if each["arithmetic"] == FLOAT32.name]
    for each in {id(each): each for each in (*exact, best)}.values():
        seconds = median(each["seconds"])
        ratio = seconds / each["bare_seconds"]
        yield (
            f"Goals, {each['height']}x{each['width']} x{each['scale']}, {each['arithmetic']}, "
            f"{each['rows']} rows: {seconds:.3f} s of {GOAL_SECONDS:g} s, "
            f"{'met' if seconds < GOAL_SECONDS else 'missed'}; {ratio:.2f} times the convolutions "
            f"of {GOAL_RATIO:g}, {'met' if ratio <= GOAL_RATIO else 'missed'}."
        )


def _table(titles: list[str], rows: list[list[str]], left: int) -> str:
    return Table([(title, 0) for title in titles], rows).as_markdown(left_columns=left)


MINIATURE = replace(
    Workload(),
    goal=(40, 48),
    others=(),
    rivals=("srcnn", "rir-16"),
    rival_side=24,
    square=64,
    copied_bytes=1 << 16,
    peak_runs=1,
    runs=1,
)
"""For a rehearsal."""
