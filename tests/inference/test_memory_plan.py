"""Memory plans: equal on every machine, within the limit, and true."""

from itertools import pairwise

import pytest
import torch
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from cxrsr_cli.dicom.transfer_syntax import write_memory_factor
from cxrsr_cli.errors import MemoryLimitError
from cxrsr_cli.inference.memory_plan import (
    DEFAULT_MEMORY_BYTES,
    MemoryPlanner,
    streaming_peak_bytes,
)
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.inference.streaming import stream
from cxrsr_cli.networks.config import ImageSkip
from cxrsr_cli.networks.conv_program import ConvProgram
from cxrsr_cli.networks.layers import build_network
from cxrsr_cli.networks.model_files import find_model
from tests.helpers.architectures import LOCAL, small

MIB = 1 << 20
LARGE = (3000, 2500)


def bundled(scale: int, memory: int | None = None) -> Predictor:
    return Predictor.load(find_model("rir-s", scale).path, device="cpu", memory=memory)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_large_radiograph_fits_in_the_default_memory(scale: int) -> None:
    plan = bundled(scale).plan(*LARGE)
    assert plan.peak_bytes <= DEFAULT_MEMORY_BYTES
    assert plan.overlap < 0.06


def test_less_memory_gives_smaller_plans_until_the_image_is_refused() -> None:
    plans = [bundled(4, memory * MIB).plan(*LARGE) for memory in (1024, 560, 510)]
    assert all(one.peak_bytes >= other.peak_bytes for one, other in pairwise(plans))
    assert all(plan.peak_bytes <= 1024 * MIB for plan in plans)
    with pytest.raises(MemoryLimitError, match=r"2500x3000 needs \d+ MiB .* 100 MiB .*--memory"):
        bundled(4, 100 * MIB).plan(*LARGE)


def test_without_a_limit_a_large_image_exceeds_the_default() -> None:
    plan = bundled(8).plan(6000, 6000)
    assert plan.peak_bytes > DEFAULT_MEMORY_BYTES
    assert plan == bundled(8, 1 << 40).plan(6000, 6000), "the fastest plan"


def test_a_compressed_output_needs_more_memory() -> None:
    plain, compressed = (
        bundled(8).plan(1000, 1000, write_memory_factor=write_memory_factor(syntax)).peak_bytes
        for syntax in (ExplicitVRLittleEndian, JPEGLSLossless)
    )
    assert compressed > 2 * plain


@pytest.mark.parametrize("shape", [(1000, 1000), (3000, 2500), (6000, 6000)])
def test_the_memory_for_writing_does_not_change_the_pixels(shape: tuple[int, int]) -> None:
    plans = [bundled(8).plan(*shape, write_memory_factor=share) for share in (0.3, 6.5)]
    assert plans[0].rows == plans[1].rows


def test_a_gpu_with_too_little_memory_gets_the_smallest_plan() -> None:
    predictor = bundled(8)
    planner = MemoryPlanner(
        predictor.architecture, predictor.program, on_gpu=True, self_ensemble=True
    )
    assert planner.plan(3000, 2500, 2).rows == 1


def test_every_frame_adds_to_the_memory() -> None:
    one, two = (bundled(8).plan(1000, 1000, 2, frames).peak_bytes for frames in (1, 2))
    assert two - one >= 2 * 8**2 * 1000 * 1000


def test_the_share_of_work_beyond_the_border_falls_with_the_size() -> None:
    overlaps = [bundled(4).plan(side, side).overlap for side in (256, 1024, 4096)]
    assert overlaps == sorted(overlaps, reverse=True)
    assert 0.05 < overlaps[1] < 0.09


def test_a_gpu_gets_as_many_rows_as_its_memory_holds() -> None:
    predictor = bundled(4)
    planner = MemoryPlanner(predictor.architecture, predictor.program, 2 << 30, on_gpu=True)
    ordinary, large = planner.plan(1024, 1024, 2), planner.plan(3000, 2500, 2)
    assert ordinary.rows > 100
    assert large.rows > 30
    assert max(ordinary.peak_bytes, large.peak_bytes) <= 2 << 30


@pytest.mark.parametrize("name", LOCAL)
@pytest.mark.parametrize("rows", [4, 50])
def test_the_predicted_bytes_are_close_to_those_held(
    name: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared with the sizes of the values after every layer."""
    torch.manual_seed(0)
    program = build_network(small(name, 2, ImageSkip.NONE)).to_conv_program()
    assert program is not None
    held = peak_bytes_held(program, 80, 60, rows, monkeypatch)
    predicted = streaming_peak_bytes(program, 80, 60, rows)
    assert 0.8 * held <= predicted <= 1.6 * held


def peak_bytes_held(
    program: ConvProgram, height: int, width: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> int:
    from cxrsr_cli.inference import streaming

    most = 0
    compute = streaming._StreamState._compute

    def measuring(self: streaming._StreamState, *rest: object) -> streaming.RowRange:
        nonlocal most
        made = compute(self, *rest)  # type: ignore[arg-type]
        values = [*self._held.values(), made]
        most = max(most, sum(value.data.nbytes for value in values))
        return made

    monkeypatch.setattr(streaming._StreamState, "_compute", measuring)
    with torch.inference_mode():
        for _ in stream(program, torch.rand(1, 1, height, width), rows=rows):
            pass
    return most
