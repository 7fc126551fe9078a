"""A compiled network run in strips equals the network run on the whole image."""

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
from cxrsr_cli.networks.layers import SuperResolutionNetwork, build_network
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
    return build_network(architecture).eval().double()


def compiled(model: SuperResolutionNetwork) -> ConvProgram:
    program = model.to_conv_program()
    assert program is not None
    return program


def image(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(1, 1, height, width, generator=generator, dtype=torch.float64)


def whole(model: SuperResolutionNetwork, seen: torch.Tensor) -> torch.Tensor:
    """Run the network itself on the image and its reflection."""
    halo, scale = model.architecture.receptive_radius, model.architecture.scale
    inner = slice(halo * scale, -halo * scale)
    output: torch.Tensor = model(reflect_pad(seen, halo))
    return output[..., inner, inner]


def streamed(program: ConvProgram, seen: torch.Tensor, rows: int) -> torch.Tensor:
    return torch.cat(list(stream(program, seen, rows=rows)), -2)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", LOCAL)
@torch.inference_mode()
def test_every_compiled_network_computes_the_same_function(name: str, scale: int) -> None:
    model, seen = network(name, scale), image(23, 18)
    expected = whole(model, seen)
    assert (streamed(compiled(model), seen, 7) - expected).abs().max() <= 1e-10


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("rows", [1, 2, 16, 1000])
@torch.inference_mode()
def test_strips_of_any_height_equal_the_whole_image(height: int, width: int, rows: int) -> None:
    model, seen = network("rir", 2), image(height, width)
    expected = whole(model, seen)
    assert (streamed(compiled(model), seen, rows) - expected).abs().max() <= 1e-10


@torch.inference_mode()
def test_the_output_depends_on_the_reflection_beyond_the_border() -> None:
    """So the tests above fail with zeros there, or with too small a radius."""
    model, seen = network("rir", 2), image(20, 20)
    expected = whole(model, seen)
    assert (model(seen) - expected).abs().max() > 1e-6


@pytest.mark.parametrize("name", sorted(GLOBAL))
def test_a_network_that_averages_the_image_is_not_compiled(name: str) -> None:
    assert network(name, 2).to_conv_program() is None


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("tail", list(Upsampler))
@torch.no_grad()
def test_every_upsampler_equals_one_convolution_and_a_pixel_shuffle(
    tail: Upsampler, scale: int
) -> None:
    model = network("rir", scale, tail)
    assert isinstance(model, ResidualInResidual)
    one = fuse_upsampler(model.tail, scale)
    assert one.weight.shape == (scale**2, 6, 5, 5)
    features = torch.randn(1, 6, 17, 15, dtype=torch.float64)
    together = F.pixel_shuffle(F.conv2d(features, one.weight, one.bias, padding=2), scale)
    error = (together - model.tail(features)).abs()
    assert error[..., 2 * scale : -2 * scale, 2 * scale : -2 * scale].max() <= 1e-10
    if tail is Upsampler.SHUFFLE_CONV:
        assert error.max() > 1e-6, "equal only inside; the image's padding covers the border"


@pytest.mark.parametrize("name", LOCAL)
def test_a_program_has_the_receptive_radius_of_its_network(name: str) -> None:
    for scale in SCALES:
        model = network(name, scale)
        assert compiled(model).halo == model.architecture.receptive_radius


@torch.inference_mode()
def test_no_row_of_any_value_is_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small strips send as many rows through convolutions as one large strip."""
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
def test_after_an_out_of_memory_error_the_rows_are_halved_and_none_is_lost(
    failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, seen = compiled(network("rir", 2)), image(50, 20)
    expected = streamed(program, seen, 16)
    convolve, calls, reported = F.conv2d, itertools.count(), list[int]()

    def failing_once(*seen: object, **options: object) -> torch.Tensor:
        if next(calls) == failing:
            raise torch.OutOfMemoryError
        return convolve(*seen, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(F, "conv2d", failing_once)
    strips = list(stream(program, seen, rows=16, on_rows_halved=reported.append))
    assert reported == [8]
    assert (torch.cat(strips, -2) - expected).abs().max() <= 1e-10


@torch.inference_mode()
def test_an_out_of_memory_error_at_the_end_of_a_strip_loses_no_row(
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


def test_too_little_memory_for_one_row_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError

    program, reported = compiled(network("rir", 2)), list[int]()
    monkeypatch.setattr(F, "conv2d", failing)
    with pytest.raises(torch.OutOfMemoryError):
        list(stream(program, image(9, 9), rows=16, on_rows_halved=reported.append))
    assert reported == [8, 4, 2, 1]


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 40))
def test_reflection_keeps_the_image_in_the_middle(height: int, width: int, margin: int) -> None:
    seen = torch.rand(1, 1, height, width)
    padded = reflect_pad(seen, margin)
    assert padded.shape[-2:] == (height + 2 * margin, width + 2 * margin)
    inner = padded[..., margin : margin + height, margin : margin + width]
    assert torch.equal(inner, seen)
    assert padded.min() == seen.min()
    assert padded.max() == seen.max()
