"""Properties of the output that must hold for any header."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_windowing
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from cxrsr_cli.batch.runner import BatchRunner, LocalExecutor
from cxrsr_cli.dicom.acceptance import AcceptanceOverride
from cxrsr_cli.dicom.codecs import decodes_to_raw_cells
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.pixel_format import PixelFormat
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.networks.config import Agreement
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.networks.resampling import block_mean
from cxrsr_cli.options import Job, UpscaleOptions
from cxrsr_cli.upscaler import Upscaler
from tests.helpers.headers import COLUMNS, PADDED, ROWS, SPACINGS, Header, build, headers, plane

SCALE = 2


def inflated(path: Path) -> Path:
    """Return an inflated copy of a deflated file, which dciodvfy can read."""
    dataset = pydicom.dcmread(path)
    if dataset.file_meta.TransferSyntaxUID != DeflatedExplicitVRLittleEndian:
        return path
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path.with_suffix(".inflated"))
    return path.with_suffix(".inflated")


def shown(values: NDArray[np.generic], dataset: Dataset, window: int) -> torch.Tensor:
    """Render as ``(F, 1, H, W)``."""
    grey = apply_windowing(apply_modality_lut(values, dataset), dataset, window)
    return torch.from_numpy(grey.astype(np.float64))[:, None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("headers")


@pytest.mark.slow
@given(header=headers())
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_the_output_is_correct_for_any_header(
    tiny_model: Path, dciodvfy: Callable[[Path], set[str]], folder: Path, header: Header
) -> None:
    source, target = folder / "in.dcm", folder / "out.dcm"
    low = build(header, source)
    before = source.read_bytes()
    options = UpscaleOptions(
        overwrite=True,
        transfer_syntax=header.wanted,
        agreement=Agreement.EXACT,
        allow=frozenset([AcceptanceOverride.MODALITY]),
    )
    upscaler = Upscaler.load(find_model(str(tiny_model), SCALE), options)
    (result,) = BatchRunner(LocalExecutor(upscaler)).run([Job(source, target)])
    assert result.error is None
    assert source.read_bytes() == before
    old, new = read_source(source), read_source(target)
    assert np.array_equal(decode(old), low), "the test must have written what it meant"
    high, bits = decode(new), header.pixels.bits_stored
    assert high.shape == (header.frames, SCALE * ROWS, SCALE * COLUMNS)
    high_bit = header.pixels.high_bit if decodes_to_raw_cells(new.transfer_syntax) else bits - 1
    assert PixelFormat.from_dataset(new.dataset) == replace(header.pixels, high_bit=high_bit)
    assert header.pixels.minimum <= high.min() <= high.max() <= header.pixels.maximum
    check_picture(header, low, high, old.dataset, new.dataset)
    check_geometry(header, old.dataset, new.dataset)
    assert dciodvfy(inflated(target)) <= dciodvfy(inflated(source))


def check_picture(
    header: Header,
    low: NDArray[np.int32],
    high: NDArray[np.int32],
    old: Dataset,
    new: Dataset,
) -> None:
    """Check that the means of blocks are the source, as stored and as rendered."""
    clear = slice(PADDED if header.padding != "none" else 0, None)
    stored = torch.from_numpy(high.astype(np.float64))[:, None]
    off = block_mean(stored, SCALE)[:, 0].numpy() - low
    assert abs(off[:, clear]).max() <= 0.5
    for window in range(1 + header.more_windows):
        if not header.wide_window or header.modality == "table":
            continue  # not linear
        slope = float(header.slope) if header.modality == "rescale" else 1.0
        dark_to_light = 2**header.pixels.bits_stored * slope
        width = float(np.atleast_1d(new.WindowWidth)[window])
        one_stored_unit = slope * dark_to_light / (width - 1)
        difference = block_mean(shown(high, new, window), SCALE) - shown(low, old, window)
        assert difference[:, :, clear].abs().max() < one_stored_unit
    if header.padding != "none":
        padding = header.pixels.minimum + (header.padding == "range")
        mask = (low <= padding).repeat(SCALE, 1).repeat(SCALE, 2)
        assert np.array_equal(high <= padding, mask)


def check_geometry(header: Header, old: Dataset, new: Dataset) -> None:
    """Check that every position keeps its distance in millimetres from the corner of the image."""
    for keyword, (between_rows, between_columns) in header.spacing.items():
        spacing = [float(number) for number in new[keyword].value]
        assert spacing[0] * new.Rows == pytest.approx(float(between_rows) * ROWS, rel=1e-9)
        assert spacing[1] * new.Columns == pytest.approx(float(between_columns) * COLUMNS, rel=1e-9)
    assert {name for name in SPACINGS if name in new} == header.spacing.keys()
    for keyword, value in header.blinds.items():
        written = new[keyword].value
        if "Left" in keyword or "Upper" in keyword:
            assert (written - 1) / SCALE + 1 == value
        elif "Edge" in keyword or "Radius" in keyword:
            assert written / SCALE == value
        elif "Center" in keyword or "Vertices" in keyword:
            middle = (np.array(written) - 0.5) / SCALE
            assert abs(middle - (np.array(value) - 0.5)).max() <= 0.5 / SCALE
        else:
            assert list(np.atleast_1d(written)) == value
    if header.overlay_origin:
        assert np.array_equal(new.overlay_array(0x6000), plane().repeat(SCALE, 0).repeat(SCALE, 1))
        origin = [(number - 1) / SCALE + 1 for number in new[0x60000050].value]
        assert origin == header.overlay_origin
