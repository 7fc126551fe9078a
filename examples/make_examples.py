"""Make the example radiographs from one image of NIH ChestX-ray14.

    python examples/make_examples.py 00003585_000.png

The image is in no training set of the shipped models. Both objects hold 12
bits: the original's 8 bits times 16, and its 4x smaller version, whose
averaging makes real use of the extra bits. The collection does not publish a
detector's pixel size, so Imager Pixel Spacing is the nominal one of a 427 mm
(17 inch) wide plate; Pixel Spacing is not stated.
"""

import sys
import uuid
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian
from skimage.io import imread

from cxrsr_cli.dicom.identifiers import IMPLEMENTATION_CLASS_UID
from cxrsr_cli.networks.resampling import downsample

SCALE = 4
BITS_STORED = 12
PLATE_WIDTH_MM = 427.0
CREDIT = "NIH Clinical Center, ChestX-ray14 (Wang et al., CVPR 2017)"


def main(png: Path) -> None:
    """Write chest-1024.dcm and chest-256.dcm beside this script."""
    step = 1 << BITS_STORED - 8
    original = imread(png).astype(np.float32) * step
    image = torch.from_numpy(original)[None, None]
    largest = (1 << BITS_STORED) - 1
    small = downsample(image, SCALE).round_().clamp_(0, largest)[0, 0].numpy()
    for number, pixels in enumerate((original, small), start=1):
        path = Path(__file__).parent / f"chest-{pixels.shape[1]}.dcm"
        radiograph(pixels.astype("<u2"), png.stem, number).save_as(path, enforce_file_format=True)


def radiograph(pixels: NDArray[np.uint16], name: str, number: int) -> FileDataset:
    """Make a DX image for presentation.

    Parameters
    ----------
    pixels : numpy.ndarray
        ``(H, W)`` uint16 of 12 bits, MONOCHROME2.
    name : str
        The collection's name of the image.
    number : int
        Makes the UIDs of the instance and its series.

    Returns
    -------
    pydicom.dataset.FileDataset
        Ready to save.
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    dataset = FileDataset("", {}, preamble=b"\0" * 128, file_meta=meta)
    _patient_and_study(dataset, name)
    _series(dataset, number)
    _anatomy(dataset)
    _image(dataset, pixels, number)
    return dataset


def _patient_and_study(dataset: Dataset, name: str) -> None:
    dataset.PatientName = "Example^Chest"
    dataset.PatientID = f"NIH-{name}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = ""
    dataset.StudyInstanceUID = _uid(f"study {name}")
    dataset.StudyDate = "20170701"
    dataset.StudyTime = "120000"
    dataset.ReferringPhysicianName = ""
    dataset.StudyID = "1"
    dataset.AccessionNumber = "EXAMPLE1"
    dataset.StudyDescription = "Chest radiograph"


def _series(dataset: Dataset, number: int) -> None:
    dataset.Modality = "DX"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.SeriesInstanceUID = _uid(f"series {number}")
    dataset.SeriesNumber = number
    dataset.SeriesDescription = "Chest"
    dataset.Manufacturer = "unknown"
    dataset.InstitutionName = CREDIT


def _anatomy(dataset: Dataset) -> None:
    dataset.BodyPartExamined = "CHEST"
    dataset.AnatomicRegionSequence = Sequence([_code("51185008", "SCT", "Chest")])
    dataset.ImageLaterality = "U"
    dataset.PatientOrientation = ["L", "F"]
    dataset.AcquisitionContextSequence = Sequence([])


def _image(dataset: Dataset, pixels: NDArray[np.uint16], number: int) -> None:
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = _uid(f"instance {number}")
    dataset.InstanceNumber = 1
    dataset.ContentDate = "20170701"
    dataset.ContentTime = "120000"
    dataset.ImageType = ["DERIVED", "PRIMARY", ""]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = BITS_STORED
    dataset.HighBit = BITS_STORED - 1
    dataset.PixelRepresentation = 0
    dataset.BurnedInAnnotation = "YES"  # side markers
    dataset.LossyImageCompression = "00"
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = 1
    dataset.RescaleIntercept = 0
    dataset.RescaleSlope = 1
    dataset.RescaleType = "US"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.WindowCenter = 2048
    dataset.WindowWidth = 4096
    spacing = f"{PLATE_WIDTH_MM / pixels.shape[1]:.6g}"
    dataset.ImagerPixelSpacing = [spacing, spacing]
    dataset.DetectorType = "STORAGE"
    dataset.PositionerType = "NONE"
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"


def _uid(what: str) -> str:
    """Return a UID that is the same when the examples are made again."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, f'cxrsr example {what}').int}"


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


if __name__ == "__main__":
    main(Path(sys.argv[1]))
