"""A compiled network, streamed in strips, makes what the network makes of the whole image."""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom
from hypothesis import given
from hypothesis import strategies as st

from cxrsr_cli.inference.streaming import reflect_pad, stream
from cxrsr_cli.networks.config import Upsampler
from cxrsr_cli.networks.conv_program import ConvProgram, fuse_upsampler
from cxrsr_cli.networks.layers import SuperResolutionNetwork
from cxrsr_cli.networks.rir import ResidualInResidual, RirConfig
from tests.helpers.architectures import GLOBAL, LOCAL, small

SCALES = (2, 4, 8)
SIZES = [(64, 40), (61, 47), (5, 3), (1, 40), (9, 1)]


def network(name: str, scale: int, tail: Upsampler | None = None) -> SuperResolutionNetwork:
    torch.manual_seed(0)
    architecture = small(name, scale)
    if tail:
        assert isinstance(architecture, RirConfig)
        architecture = replace(architecture, upsampler=tail)
    return architecture.build().eval().double()


def compiled(of: SuperResolutionNetwork) -> ConvProgram:
    program = of.to_conv_program()
    assert program is not None
    return program


def image(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(1, 1, height, width, generator=generator, dtype=torch.float64)


def whole(of: SuperResolutionNetwork, seen: torch.Tensor) -> torch.Tensor:
    """Run the network itself on the image and its reflection."""
    halo, scale = of.architecture.receptive_radius, of.architecture.scale
    inner = slice(halo * scale, -halo * scale)
    output: torch.Tensor = of(reflect_pad(seen, halo))
    return output[..., inner, inner]


def streamed(program: ConvProgram, seen: torch.Tensor, rows: int) -> torch.Tensor:
    return torch.cat(list(stream(program, seen, rows=rows)), -2)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", LOCAL)
@torch.inference_mode()
def test_every_family_is_compiled_to_the_same_function(name: str, scale: int) -> None:
    of, seen = network(name, scale), image(23, 18)
    expected = whole(of, seen)
    assert (streamed(compiled(of), seen, 7) - expected).abs().max() <= 1e-10


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("rows", [1, 2, 16, 1000])
@torch.inference_mode()
def test_strips_of_any_height_make_the_whole_image(height: int, width: int, rows: int) -> None:
    of, seen = network("rir", 2), image(height, width)
    expected = whole(of, seen)
    assert (streamed(compiled(of), seen, rows) - expected).abs().max() <= 1e-10


@torch.inference_mode()
def test_what_lies_beyond_the_border_is_seen() -> None:
    """The tests above can fail: zeros there, or a radius too short, are seen."""
    of, seen = network("rir", 2), image(20, 20)
    expected = whole(of, seen)
    assert (of(seen) - expected).abs().max() > 1e-6


@pytest.mark.parametrize("name", sorted(GLOBAL))
def test_a_network_that_averages_the_image_is_not_compiled(name: str) -> None:
    assert network(name, 2).to_conv_program() is None


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("tail", list(Upsampler))
@torch.no_grad()
def test_any_upsampler_is_one_convolution_and_a_shuffle(tail: Upsampler, scale: int) -> None:
    of = network("rir", scale, tail)
    assert isinstance(of, ResidualInResidual)
    one = fuse_upsampler(of.tail, scale)
    assert one.weight.shape == (scale**2, 6, 5, 5)
    features = torch.randn(1, 6, 17, 15, dtype=torch.float64)
    together = F.pixel_shuffle(F.conv2d(features, one.weight, one.bias, padding=2), scale)
    error = (together - of.tail(features)).abs()
    assert error[..., 2 * scale : -2 * scale, 2 * scale : -2 * scale].max() <= 1e-10
    if tail is Upsampler.SHUFFLE_CONV:
        assert error.max() > 1e-6, "its border needs the padding that an image gets"


@pytest.mark.parametrize("name", LOCAL)
def test_a_program_reaches_as_far_as_the_network(name: str) -> None:
    for scale in SCALES:
        of = network(name, scale)
        assert compiled(of).halo == of.architecture.receptive_radius


@torch.inference_mode()
def test_no_row_of_any_value_is_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rows go through convolutions in low strips as in one."""
    program, seen = compiled(network("rir", 2)), image(50, 20)
    convolve, rows = F.conv2d, list[int]()

    def counting(seen: torch.Tensor, *rest: object, **options: object) -> torch.Tensor:
        made = convolve(seen, *rest, **options)  # type: ignore[call-overload]
        rows.append(made.shape[-2])
        return made  # type: ignore[no-any-return]

    monkeypatch.setattr(F, "conv2d", counting)
    at_once = streamed(program, seen, 1000)
    computed = sum(rows)
    rows.clear()
    in_strips = streamed(program, seen, 3)
    assert sum(rows) == computed
    assert max(rows) == 3
    assert (at_once - in_strips).abs().max() <= 1e-10


@pytest.mark.parametrize("failing", [0, 1, 40, 41, 99])
@torch.inference_mode()
def test_short_memory_narrows_the_strips_and_loses_nothing(
    failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, seen = compiled(network("rir", 2)), image(50, 20)
    expected = streamed(program, seen, 16)
    convolve, calls, told = F.conv2d, itertools.count(), list[int]()

    def failing_once(*seen: object, **options: object) -> torch.Tensor:
        if next(calls) == failing:
            raise torch.OutOfMemoryError
        return convolve(*seen, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(F, "conv2d", failing_once)
    strips = list(stream(program, seen, rows=16, on_rows_halved=told.append))
    assert told == [8]
    assert (torch.cat(strips, -2) - expected).abs().max() <= 1e-10


@torch.inference_mode()
def test_short_memory_at_the_very_end_of_a_strip_loses_no_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program, seen = compiled(network("rir", 2)), image(50, 20)
    expected = streamed(program, seen, 16)
    shuffle, calls = F.pixel_shuffle, itertools.count()

    def failing_once(maps: torch.Tensor, factor: int) -> torch.Tensor:
        if next(calls) == 1:
            raise torch.OutOfMemoryError
        return shuffle(maps, factor)

    monkeypatch.setattr(F, "pixel_shuffle", failing_once)
    assert (streamed(program, seen, 16) - expected).abs().max() <= 1e-10


def test_memory_for_no_row_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError

    program, told = compiled(network("rir", 2)), list[int]()
    monkeypatch.setattr(F, "conv2d", failing)
    with pytest.raises(torch.OutOfMemoryError):
        list(stream(program, image(9, 9), rows=16, on_rows_halved=told.append))
    assert told == [8, 4, 2, 1]


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 40))
def test_reflection_keeps_the_image_in_the_middle(height: int, width: int, margin: int) -> None:
    seen = torch.rand(1, 1, height, width)
    padded = reflect_pad(seen, margin)
    assert padded.shape[-2:] == (height + 2 * margin, width + 2 * margin)
    inner = padded[..., margin : margin + height, margin : margin + width]
    assert torch.equal(inner, seen)
    assert padded.min() == seen.min()
    assert padded.max() == seen.max()
