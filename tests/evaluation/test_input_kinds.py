"""Each kind of input is what its name says, reproducible, and at the depth of its image."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from cxrsr_cli.errors import UsageError
from cxrsr_cli.evaluation.input_kinds import ALL_INPUTS, InputKind, parse_inputs
from cxrsr_cli.evaluation.protocol import PROTOCOLS, ProtocolName
from cxrsr_cli.images.image_files import GrayscaleImage
from cxrsr_cli.networks.resampling import downsample, upsample
from tests.conftest import ROOT

SCALE = 4


def image(values: torch.Tensor, name: str = "a", bits: int = 12) -> GrayscaleImage:
    return GrayscaleImage(name, values, maximum=float((1 << bits) - 1))


def scene(bits: int = 12, side: int = 256) -> GrayscaleImage:
    """Make a smooth image within the range."""
    random = torch.randn(1, 1, side // 16, side // 16, generator=torch.Generator().manual_seed(0))
    smooth = upsample(upsample(random, 4), 4)
    span = (1 << bits) - 1
    return image((smooth * span / 8 + span / 2).clamp_(0, span).round_(), bits=bits)


GREY = image(torch.full((1, 1, 1600, 1600), 1024.0))
"""A quarter of the range of 12 bits."""


def reduce(name: str, original: GrayscaleImage) -> np.ndarray:
    values = InputKind.parse(name).reduce(original, SCALE)[0, 0]
    return values.double().numpy()


def noise(name: str) -> np.ndarray:
    """Return the noise of a grey image in percent of the range."""
    return (reduce(name, GREY) - 1024) / 40.95


@pytest.mark.parametrize("kind", ALL_INPUTS, ids=str)
@pytest.mark.parametrize(("minimum", "maximum"), [(0, 255), (-2048, 2047), (0, 65535)])
def test_an_input_has_whole_values_within_the_range_and_is_reproducible(
    kind: InputKind, minimum: int, maximum: int
) -> None:
    span = maximum - minimum
    values = torch.rand(1, 1, 64, 48, generator=torch.Generator().manual_seed(0))
    original = GrayscaleImage("a", (values * span).round_() + minimum, maximum, minimum)
    low = kind.reduce(original, 2)
    assert low.shape == (1, 1, 32, 24)
    assert low.dtype == torch.float32
    assert torch.equal(low, low.round().clamp(minimum, maximum))
    assert torch.equal(low, kind.reduce(original, 2))
    plain = downsample(original.values, 2)
    assert (low - plain).abs().mean() < span / 8


@pytest.mark.parametrize("name", ["white-1", "quantum-1", "grain-1", "salt-pepper-1"])
def test_images_of_another_name_have_other_noise(name: str) -> None:
    kind = InputKind.parse(name)
    first, other = (kind.reduce(image(GREY.values[..., :64, :64], each), 2) for each in "ab")
    assert not torch.equal(first, other)


def test_an_amount_scales_the_same_noise() -> None:
    assert np.corrcoef(noise("white-0.5").flat, noise("white-2").flat)[0, 1] > 0.99


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bicubic", lambda x: downsample(torch.from_numpy(x)[None, None], SCALE)[0, 0].numpy()),
        ("binned", lambda x: x.reshape(64, SCALE, 64, SCALE).mean((1, 3))),
        ("bilinear", lambda x: resized(x, Image.Resampling.BILINEAR)),
        ("lanczos", lambda x: resized(x, Image.Resampling.LANCZOS)),
        (
            "blurred",
            lambda x: downsample(
                torch.from_numpy(gaussian_filter(x, 0.5 * SCALE, mode="nearest"))[None, None], SCALE
            )[0, 0].numpy(),
        ),
    ],
)
def test_a_kernel_is_the_named_one(name: str, expected: object) -> None:
    """To within rounding, of which halves may fall to either side."""
    assert callable(expected)
    original = scene()
    exact = expected(original.values[0, 0].double().numpy())
    assert np.abs(reduce(name, original) - exact).max() <= 0.51


def resized(x: np.ndarray, method: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(x.astype(np.float32)).resize((64, 64), method))


def correlation(values: np.ndarray) -> float:
    """Return the correlation of neighbours."""
    return float(np.corrcoef(values[:, 1:].flat, values[:, :-1].flat)[0, 1])


@pytest.mark.parametrize(
    ("name", "deviation", "is_correlated"),
    [
        ("white-0.5", 0.5, False),
        ("white-1.5", 1.5, False),
        ("quantum-1", 0.5, False),
        ("grain-1", 1.0, True),
    ],
)
def test_noise_has_the_stated_strength(name: str, deviation: float, is_correlated: bool) -> None:
    """In percent of the range; quantum noise at its bright end, half of that at a quarter."""
    found = noise(name)
    assert found.std() == pytest.approx(deviation, rel=0.02)
    assert found.mean() == pytest.approx(0, abs=0.02)
    assert (correlation(found) > 0.3) == is_correlated


def test_salt_and_pepper_are_half_smallest_and_half_largest_values() -> None:
    values, counts = np.unique(reduce("salt-pepper-2", GREY), return_counts=True)
    assert values.tolist() == [0, 1024, 4095]
    assert counts / 160_000 == pytest.approx([0.01, 0.98, 0.01], abs=0.001)


def test_jpeg_has_8_bits_and_larger_errors_at_lower_quality() -> None:
    original = scene()
    plain = reduce("bicubic", original)
    errors = [np.abs(reduce(name, original) - plain).mean() for name in ("jpeg-90", "jpeg-30")]
    assert 0 < errors[0] < errors[1] < 100
    steps = reduce("jpeg-90", original) * 255 / 4095
    assert np.abs(steps - steps.round()).max() <= 0.5 * 255 / 4095 + 1e-6


def test_names_are_parsed_and_printed() -> None:
    names = "binned, white-1.50,jpeg-075,binned"
    assert [str(kind) for kind in parse_inputs(names)] == ["binned", "white-1.5", "jpeg-75"]
    assert parse_inputs("all") == ALL_INPUTS
    assert parse_inputs("bicubic,all") == ALL_INPUTS
    for protocol in PROTOCOLS.values():
        assert parse_inputs(protocol.inputs)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (",", "no kind of input is named"),
        ("unheard-of", "must be all or bicubic, .*, jpeg-AMOUNT"),
        ("white", "no kind of input"),
        ("binned-2", "no kind of input"),
        ("white-", "number from 0.01 to 100"),
        ("white-nan", "number from 0.01 to 100"),
        ("white-0", "number from 0.01 to 100"),
        ("white-101", "number from 0.01 to 100"),
        ("jpeg-90.5", "whole number from 1 to 100"),
        ("jpeg-0", "whole number from 1 to 100"),
    ],
)
def test_unknown_kinds_and_illegal_amounts_are_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_inputs(text)


@pytest.mark.parametrize("kind", ALL_INPUTS, ids=str)
def test_every_kind_is_documented(kind: InputKind) -> None:
    text = (ROOT / "docs" / "evaluating.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| .*`{kind}`.* \|.* \|$", text, re.MULTILINE)


@pytest.mark.parametrize("name", ProtocolName)
def test_every_protocol_is_documented(name: ProtocolName) -> None:
    text = (ROOT / "docs" / "evaluating.md").read_text(encoding="utf-8")
    column = 2 + list(ProtocolName).index(name)
    table = text.partition("## Protocols")[2].partition("\n\nPapers")[0].strip().splitlines()
    title, _, *cells = [row.split("|")[column].strip(" `") for row in table]
    protocol = PROTOCOLS[name]
    assert title == f"--protocol {name}"
    assert cells[:3] == [protocol.inputs, protocol.methods, protocol.reference]
    assert ("whole image" in cells[3]) == protocol.whole_image
