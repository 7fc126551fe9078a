"""Outputs of real chest radiographs hold in every claim, at every scale and in every syntax."""

from itertools import cycle
from pathlib import Path

import numpy as np
import pydicom
import pytest

from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.pixel_format import PixelFormat
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.dicom.transfer_syntax import OutputTransferSyntax
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.options import UpscaleOptions
from cxrsr_cli.upscaler import Upscaler
from cxrsr_cli.verify.findings import Aspect, ClaimStatus
from cxrsr_cli.verify.verify import verify

SIDE = 128
PER_HOSPITAL = 3
SYNTAXES = ("explicit", "jpegls", "j2k", "rle")


def crop(path: Path, target: Path) -> Path:
    """Write a part of a radiograph, uncompressed; the lossy marks of its header stay."""
    source = read_source(path)
    frame, dataset = decode(source)[0], pydicom.dcmread(path)
    top, left = ((side - SIDE) // 3 for side in frame.shape)
    part = np.ascontiguousarray(frame[top : top + SIDE, left : left + SIDE])
    dataset.Rows, dataset.Columns = part.shape
    cells = PixelFormat.from_dataset(source.dataset).pack(part).tobytes()
    dataset.add_new("PixelData", "OW", cells)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.save_as(target)
    return target


@pytest.fixture(scope="module")
def chests(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Cut parts out of radiographs of several hospitals."""
    folder = tmp_path_factory.mktemp("chests")
    files = sorted((shared / "dicom" / "chest").iterdir())
    for hospital in ("hannover10", "guangzhou10"):
        files += sorted((shared / "cxr" / hospital / "test").iterdir())[:PER_HOSPITAL]
    return [crop(path, folder / f"{number}.dcm") for number, path in enumerate(files)]


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("noise_reduction", [None, 1.0])
def test_outputs_of_real_chests_hold(
    chests: list[Path], tmp_path: Path, scale: int, noise_reduction: float | None
) -> None:
    model = find_model("rir-s", scale)
    for number, (source, syntax) in enumerate(zip(chests, cycle(SYNTAXES), strict=False)):
        options = UpscaleOptions(
            scale=scale,
            device="cpu",
            noise_reduction=noise_reduction,
            transfer_syntax=OutputTransferSyntax(syntax),
        )
        target = tmp_path / f"{number}.dcm"
        Upscaler.load(model, options).upscale_file(source, target)
        findings = verify(source, target).findings
        wrong = [each for each in findings if each.status is not ClaimStatus.HOLDS]
        assert [each.aspect for each in wrong] == [Aspect.RECOMPUTATION], (source.name, wrong)
