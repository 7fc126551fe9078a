"""What was changed in an output is found: by the audit, or only by making the output again."""

from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.options import UpscaleOptions
from cxrsr_cli.upscaler import Upscaler
from cxrsr_cli.verify.findings import Aspect, ClaimStatus
from cxrsr_cli.verify.recompute import Recomputation
from cxrsr_cli.verify.verify import VerificationReport, verify
from tests.conftest import EXAMPLE
from tests.verify.tampers import CENTRE, FoundBy, Tamper, header_tampers, pixel_tampers, restate

SIDE = 160
SIGMA = 12.5
"""About the noise of the source at the place that is changed; a test holds it."""
PIXEL_TAMPERS = pixel_tampers(SIGMA)
TAMPERS = [*PIXEL_TAMPERS, *header_tampers()]


@dataclass(frozen=True, slots=True)
class Pair:
    """A crop of a real radiograph, and its output by the default network at x2."""

    source: Path
    derived: Path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Make both once."""
    folder = tmp_path_factory.mktemp("pair")
    dataset = pydicom.dcmread(EXAMPLE)
    dataset.PixelData = dataset.pixel_array[60 : 60 + SIDE, 20 : 20 + SIDE].tobytes()
    dataset.Rows = dataset.Columns = SIDE
    dataset.PixelSpacing = dataset.ImagerPixelSpacing
    dataset.ShutterShape, dataset.ShutterLeftVerticalEdge = "RECTANGULAR", 3
    dataset.DetectorBinning = [2, 2]
    dataset.Manufacturer, dataset.DeviceSerialNumber = "ACME", "77"
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio, dataset.LossyImageCompressionMethod = 5, "ISO_10918_1"
    dataset.add_new("LargestImagePixelValue", "US", int(dataset.pixel_array.max()))
    dataset.private_block(0x0009, "TEST", create=True).add_new(0x01, "LO", "private")
    found = Pair(folder / "source.dcm", folder / "derived.dcm")
    dataset.save_as(found.source)
    upscaler = Upscaler.load(find_model("rir-s", 2), UpscaleOptions(scale=2, device="cpu"))
    upscaler.upscale_file(found.source, found.derived)
    return found


def audit(pair: Pair, tamper: Tamper, folder: Path, *, again: bool = False) -> VerificationReport:
    dataset = pydicom.dcmread(pair.derived)
    with quiet_libraries():
        tamper.change(dataset)
        if tamper in PIXEL_TAMPERS:
            restate(dataset, pydicom.dcmread(pair.source).pixel_array)
        pydicom.dcmwrite(folder / "tampered.dcm", dataset)
    recomputation = Recomputation() if again else None
    return verify(pair.source, folder / "tampered.dcm", recomputation=recomputation)


def test_there_are_at_least_eighty_changes() -> None:
    assert len({tamper.name for tamper in TAMPERS}) == len(TAMPERS) >= 80


def test_an_unchanged_output_holds_and_is_made_again_bit_for_bit(pair: Pair) -> None:
    report = verify(pair.source, pair.derived, recomputation=Recomputation())
    assert {finding.status for finding in report.findings} == {ClaimStatus.HOLDS}
    assert report.findings[-1].detail == "bit for bit"
    assert {finding.aspect for finding in report.findings} == set(Aspect)
    row, column = CENTRE
    pixels = pydicom.dcmread(pair.source).pixel_array[row // 2, column // 2]
    assert report.noise[0].at(pixels) == pytest.approx(SIGMA, rel=0.25)


@pytest.mark.parametrize("tamper", TAMPERS, ids=lambda tamper: tamper.name)
def test_a_change_is_found(pair: Pair, tmp_path: Path, tamper: Tamper) -> None:
    aspects = {each.aspect for each in audit(pair, tamper, tmp_path).findings if each.fails}
    match tamper.found_by:
        case FoundBy.AUDIT:
            # Not only by the code that wrote it.
            assert aspects - {Aspect.HEADER}
        case FoundBy.HEADER:
            assert aspects == {Aspect.HEADER}
        case FoundBy.RECOMPUTATION:
            assert not aspects
            assert not audit(pair, tamper, tmp_path, again=True).holds
