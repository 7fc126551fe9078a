"""The impulse filter removes lone pixels, keeps the picture, and is recorded in the output."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.torch import load_file, save_file
from torch import Tensor

from cxrsr_cli.dicom.pixel_format import PixelRange
from cxrsr_cli.evaluation.evaluator import read_ground_truth
from cxrsr_cli.evaluation.input_kinds import InputKind
from cxrsr_cli.images.image_files import GrayscaleImage, list_image_files
from cxrsr_cli.inference.impulse_filter import remove_impulses
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.metrics.psnr_ssim import psnr
from cxrsr_cli.networks.config import Agreement, ImageSkip
from cxrsr_cli.networks.model_files import read_metadata, save_network
from cxrsr_cli.networks.rir import ResidualInResidual, RirConfig
from cxrsr_cli.training.degradation import DegradationConfig
from cxrsr_cli.training.patch_sampler import PatchSampler
from cxrsr_cli.training.training_data import make_degraded_pair, make_pair
from tests.conftest import Command, describe, small_chest


def filtered(rows: list[list[float]]) -> list[list[float]]:
    image = torch.tensor(rows, dtype=torch.float32)[None, None]
    found: list[list[float]] = remove_impulses(image, PixelRange(0, 9))[0, 0].tolist()
    return found


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # A lone pixel at either end becomes the median. Of an even number of neighbours, this
        # is the mean of the middle two.
        ([[1, 2, 3], [4, 9, 5], [6, 7, 8]], [[1, 2, 3], [4, 4.5, 5], [6, 7, 8]]),
        ([[1, 2, 3], [4, 0, 5], [6, 7, 8]], [[1, 2, 3], [4, 4.5, 5], [6, 7, 8]]),
        # Neighbours that are noise themselves do not count.
        ([[1, 2, 3], [4, 9, 0], [6, 7, 8]], [[1, 2, 3], [4, 4, 5], [6, 7, 8]]),
        # Three similar neighbours: part of the picture, such as a letter or a border.
        ([[9, 9, 3], [9, 9, 5], [6, 7, 8]], [[9, 9, 3], [9, 9, 5], [6, 7, 8]]),
        ([[0, 0, 0], [0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0], [0, 0, 0]]),
        # Two similar neighbours that face each other: a line. Two side by side: noise.
        ([[1, 9, 3], [4, 9, 5], [6, 9, 8]], [[1, 4, 3], [4, 9, 5], [6, 6, 8]]),
        ([[9, 2, 3], [4, 9, 5], [6, 7, 9]], [[4, 2, 3], [4, 9, 5], [6, 7, 7]]),
        ([[1, 9, 9], [4, 9, 5], [6, 7, 8]], [[1, 4, 5], [4, 5.5, 5], [6, 7, 8]]),
        # Salt in the black border is removed; pepper in it cannot be seen.
        ([[0, 0, 0], [0, 9, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0], [0, 0, 0]]),
        # A pixel that is not at an end of the range stays.
        ([[1, 1, 1], [1, 8, 1], [1, 1, 1]], [[1, 1, 1], [1, 8, 1], [1, 1, 1]]),
        # A pixel without any known neighbour stays.
        ([[9]], [[9]]),
        ([[9, 0], [0, 9]], [[9, 0], [0, 9]]),
    ],
    ids=str,
)
def test_lone_pixels_at_an_end_of_the_range_become_the_median(
    before: list[list[float]], after: list[list[float]]
) -> None:
    assert filtered(before) == after


@given(
    arrays.arrays(
        np.float32, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(0, 9)
    ),
    st.integers(0, 3),
)
def test_the_filter_keeps_the_range_and_commutes_with_rotation(
    values: "np.ndarray[tuple[int, int], np.dtype[np.float32]]", turns: int
) -> None:
    image = torch.from_numpy(values.copy())[None, None]
    before = image.clone()
    found = remove_impulses(image, PixelRange(0, 9))
    assert torch.equal(image, before), "the input is unchanged"
    assert found.isfinite().all()
    assert image.min() <= found.min()
    assert found.max() <= image.max()
    inner = (image > 0) & (image < 9)
    assert torch.equal(found[inner], image[inner])
    turned = remove_impulses(torch.rot90(image, turns, (-2, -1)), PixelRange(0, 9))
    assert torch.equal(torch.rot90(found, turns, (-2, -1)), turned)


@pytest.mark.parametrize("amount", [0.5, 2])
def test_the_filter_restores_noisy_radiographs(shared: Path, amount: float) -> None:
    """PSNR rises by at least 20 dB, to at least 45 dB."""
    for path in list_image_files(shared / "cxr" / "nih" / "val")[:5]:
        original = read_ground_truth(path, 4)
        clean = original.downsample(4)
        noisy = InputKind.parse(f"salt-pepper-{amount}").reduce(original, 4)
        found = remove_impulses(noisy, PixelRange(0, 255))
        before, after = (psnr(image, clean, peak=255, border=1) for image in (noisy, found))
        assert after > max(before + 20, 45)


SCALE = 2


def model(
    path: Path, *, agreement: Agreement = Agreement.NOISE, impulse_filter: bool = True
) -> Path:
    """Write a network whose residual is not zero."""
    torch.manual_seed(0)
    architecture = RirConfig(
        scale=SCALE, channels=4, groups=1, blocks=1, impulse_filter=impulse_filter
    )
    network = ResidualInResidual(architecture).eval()
    torch.nn.init.normal_(network.state_dict()["tail.0.weight"], std=0.01)
    save_network(network, describe(architecture), path)
    save_file(load_file(path), path, read_metadata(path).to_header() | {"agreement": agreement})
    return path


def chest_with_dead_pixels() -> tuple[Tensor, Tensor]:
    clean = torch.from_numpy(small_chest().pixel_array.astype(np.float32))[None, None]
    noisy = clean.clamp(1, 254)
    noisy[..., ::7, ::5] = 255
    noisy[..., 3::7, 2::5] = 0
    return noisy, remove_impulses(noisy, PixelRange(0, 255))


def test_a_predictor_uses_the_filtered_image_for_network_and_skip(tmp_path: Path) -> None:
    noisy, clean = chest_with_dead_pixels()
    with_filter, without = (
        Predictor.load(
            model(tmp_path / f"{is_on}.safetensors", impulse_filter=is_on),
            device="cpu",
            agreement=Agreement.NONE,
        )
        for is_on in (True, False)
    )

    def estimate(predictor: Predictor, low: Tensor) -> Tensor:
        return predictor.predict(low, PixelRange(0, 255))

    assert torch.equal(estimate(with_filter, noisy), estimate(without, clean))
    assert not torch.allclose(estimate(with_filter, noisy), estimate(without, noisy), atol=5)


def test_training_uses_the_filtered_image_for_network_and_skip() -> None:
    """In patches, validation images and clean images, with the clean image's normalisation."""
    values = torch.from_numpy(
        np.asarray(pydicom.dcmread(Path("examples/chest-1024.dcm")).pixel_array, np.float32)
    )[None, None, 256:512, 256:512]
    image = GrayscaleImage("a", values, 255)
    what = DegradationConfig(salt_pepper=(0.02, 0.02))
    clean = make_pair(image, SCALE, ImageSkip.BICUBIC)
    kept = make_pair(image, SCALE, ImageSkip.BICUBIC, impulse_filter=True)
    whole = make_degraded_pair(image, SCALE, ImageSkip.BICUBIC, what, seed=1, impulse_filter=True)
    for pair in (kept, whole):
        assert (pair.minimum, pair.maximum) == pytest.approx((clean.minimum, clean.maximum), 0.02)
        assert pair.low.sub(clean.low).square().mean().sqrt() < 0.02
        assert pair.skip is not None
        assert clean.skip is not None
        assert pair.skip.sub(clean.skip).square().mean().sqrt() < 0.02
    sampler = PatchSampler(
        [make_pair(image, SCALE, ImageSkip.NONE)],
        SCALE,
        torch.Generator().manual_seed(0),
        degradation=what,
        skip_kind=ImageSkip.BICUBIC,
        impulse_filter=True,
    )
    batch = sampler.sample(8, 24)
    assert batch.skip is not None
    assert batch.skip.sub(batch.high).square().mean().sqrt() < 0.03
    assert batch.minimum.max().item() == pytest.approx(clean.minimum)


@pytest.mark.parametrize("stated", Agreement)
def test_the_header_decides_the_agreement_by_default(tmp_path: Path, stated: Agreement) -> None:
    path = model(tmp_path / "a.safetensors", agreement=stated)
    assert read_metadata(path).agreement is stated
    assert Predictor.load(path, device="cpu").agreement is stated
    for chosen in Agreement:
        assert Predictor.load(path, device="cpu", agreement=chosen).agreement is chosen


@pytest.mark.parametrize(
    ("arguments", "said", "unsaid"),
    [
        ([], ["not bound to the source", "replaced by the median"], ["mean of eight"]),
        (["--agreement", "exact"], ["each block is the source pixel;"], ["not bound"]),
        (["--agreement", "noise"], ["to within 2 sigma", "sigma at stored values: "], []),
        (["--self-ensemble"], ["mean of eight flips and rotations", "not bound"], []),
    ],
    ids=str,
)
def test_the_output_records_agreement_filter_and_self_ensemble(
    cxrsr: Command, tmp_path: Path, arguments: list[str], said: list[str], unsaid: list[str]
) -> None:
    small_chest().save_as(tmp_path / "in.dcm")
    weights = model(tmp_path / "model.safetensors", agreement=Agreement.NONE)
    done = cxrsr(
        "upscale", "-s", str(SCALE), "-m", str(weights), *arguments,
        str(tmp_path / "in.dcm"), str(tmp_path / "out.dcm"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    description = pydicom.dcmread(tmp_path / "out.dcm").DerivationDescription
    assert all(text in description for text in said)
    assert not any(text in description for text in unsaid)
