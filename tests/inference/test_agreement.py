"""The mean of each block of an output is the source's pixel, to within its noise."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrsr_cli.dicom.pixel_format import Padding
from cxrsr_cli.inference.agreement import SIGMAS, AgreementDeviation, enforce_agreement
from cxrsr_cli.inference.noise_curve import NoiseCurve
from cxrsr_cli.networks.config import Agreement
from cxrsr_cli.networks.resampling import block_mean, repeat_pixels

SCALES = st.sampled_from([2, 4, 8])


def draw(seed: int, scale: int, spread: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a source of whole values from 0 to 255, and an estimate that leaves the range."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(0, 256, (1, 1, 7, 5), generator=generator).float()
    noise = torch.randn(1, 1, 7 * scale, 5 * scale, generator=generator)
    return source, repeat_pixels(source, scale) + spread * noise


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**16), scale=SCALES, spread=st.sampled_from([0.3, 10, 300]))
def test_exact_agreement_gives_the_source_within_the_range(
    seed: int, scale: int, spread: float
) -> None:
    source, estimate = draw(seed, scale, spread)
    output = enforce_agreement(estimate, source, scale, bound=0.0, minimum=0, maximum=255)
    assert output.min() >= 0
    assert output.max() <= 255
    assert (block_mean(output, scale) - source).abs().max() < 1e-3


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**16), scale=SCALES, bound=st.floats(0, 50))
def test_a_mean_leaves_the_source_by_the_bound_at_most(seed: int, scale: int, bound: float) -> None:
    source, estimate = draw(seed, scale, 100)
    output = enforce_agreement(estimate, source, scale, bound=bound, minimum=0, maximum=255)
    assert (block_mean(output, scale) - source).abs().max() <= bound + 1e-3


def test_a_legal_block_within_the_bound_is_not_changed() -> None:
    source = torch.full((1, 1, 1, 1), 100.0)
    estimate = torch.tensor([[90.0, 130.0], [100.0, 96.0]])[None, None]
    output = enforce_agreement(estimate, source, 2, bound=4.0, minimum=0, maximum=255)
    assert torch.equal(output, estimate)


def test_what_clipping_takes_away_is_given_to_the_other_pixels_of_the_block() -> None:
    source = torch.full((1, 1, 1, 1), 250.0)
    estimate = torch.tensor([[290.0, 240.0], [240.0, 230.0]])[None, None]
    output = enforce_agreement(estimate, source, 2, bound=0.0, minimum=0, maximum=255)
    assert output.max() <= 255
    assert output.mean().item() == pytest.approx(250)
    assert output[0, 0, 0, 1] == output[0, 0, 1, 0] > output[0, 0, 1, 1], "the order stays"


def test_blocks_do_not_depend_on_each_other() -> None:
    """So strips need no context."""
    source, estimate = draw(1, 4, 50)
    whole = enforce_agreement(estimate, source, 4, bound=3.0, minimum=0, maximum=255)
    part = enforce_agreement(
        estimate[..., 8:20, :], source[..., 2:5, :], 4, bound=3.0, minimum=0, maximum=255
    )
    assert torch.equal(whole[..., 8:20, :], part)


def test_rounding_moves_a_mean_by_half_a_unit_at_most() -> None:
    source, estimate = draw(2, 4, 30)
    output = enforce_agreement(estimate, source, 4, bound=0.0, minimum=0, maximum=255)
    rounded = output.round()[0, 0].int().numpy()
    deviation = AgreementDeviation.measure(rounded, source[0, 0].int().numpy())
    assert 0 < deviation.mean <= deviation.rms <= deviation.largest <= 0.5
    assert deviation.beyond == 0


def test_the_deviation_counts_noise_and_leaves_out_padding() -> None:
    stored = np.array([[10, 100], [200, 0]], np.int32)
    output = np.kron(stored, np.ones((2, 2), np.int32))
    output[:2, 2:] += 9
    output[2:, 2:] = 77
    padding = Padding(0, 0)
    found = AgreementDeviation.measure(output, stored, padding)
    assert found.largest == 9
    assert found.mean == 3
    assert found.beyond == 8.5
    noise = NoiseCurve((10, 100, 200), (0.0, 4.0, 0.0))
    assert AgreementDeviation.measure(output, stored, padding, noise).beyond == 9 - SIGMAS * 4 - 0.5


@pytest.mark.parametrize("agreement", Agreement)
def test_the_text_for_the_object_is_ascii_and_states_the_deviation(agreement: Agreement) -> None:
    noise = NoiseCurve((10, 2000), (0.5, 12.3))
    text = AgreementDeviation(1.0, 0.5, 3.25, noise=noise).describe(agreement)
    assert text.isascii()
    assert "3.25" in text
    assert ("10: 0.5, 2000: 12.3" in text) == (agreement is Agreement.NOISE)
