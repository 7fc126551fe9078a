"""Attributes that must have one value of one type: the Image Pixel module and UIDs."""

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID

from cxrsr_cli.errors import UnsupportedImageError

_INTEGERS = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "SamplesPerPixel",
)  # fmt: skip
_TEXTS = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID",
    "PhotometricInterpretation", "PresentationIntentType", "Modality", "LossyImageCompression",
)  # fmt: skip
_SEQUENCES = (
    "ContributingEquipmentSequence", "AnatomicRegionSequence", "DerivationCodeSequence",
    "VOILUTSequence", "ModalityLUTSequence", "SourceImageSequence",
)  # fmt: skip

_MAX_QUOTED_CHARACTERS = 16


def single_value(dataset: Dataset, keyword: str) -> int | str | None:
    """Return the value of an attribute of this module, or None if it has not one of its type.

    Spaces around text are not part of it (PS3.5 6.2).
    """
    value = dataset.get(keyword)
    if keyword in _INTEGERS:
        return int(value) if isinstance(value, int) else None
    return (value.strip() or None) if isinstance(value, str) else None


def set_single_values(dataset: Dataset) -> None:
    """Replace what is not one value of the right type by no value, in place.

    So whoever reads these attributes gets a value of its type or None.
    """
    for keyword in (*_INTEGERS, *_TEXTS):
        if keyword in dataset:
            value = single_value(dataset, keyword)
            vr = dictionary_VR(keyword)
            dataset[keyword] = DataElement(Tag(keyword), vr, value)
    for keyword in _SEQUENCES:
        if keyword in dataset and dataset[keyword].VR != "SQ":
            dataset[keyword] = DataElement(Tag(keyword), "SQ", [])


def number_of_frames(dataset: Dataset) -> int:
    """Return Number of Frames, or 1 if it is absent.

    Raises
    ------
    UnsupportedImageError
        If it is not a positive number.
    """
    try:
        frames = int(dataset.get("NumberOfFrames") or 1)
    except (TypeError, ValueError):
        frames = 0
    if frames < 1:
        raise UnsupportedImageError("Number of Frames is not a positive number")
    return frames


def quoted(value: object) -> str:
    """Quote a value in a message: at most 16 characters, of printable ASCII."""
    text = str(value or "")[:_MAX_QUOTED_CHARACTERS]
    return repr("".join(c if c.isascii() and c.isprintable() else "?" for c in text))


def sop_class_name(dataset: Dataset) -> str:
    """Return the standard's name of a SOP Class; the UID of any other one is not shown."""
    uid = UID(str(dataset.get("SOPClassUID") or ""), validation_mode=IGNORE)
    return uid.name if uid.is_valid and uid.name != uid else "an unknown SOP Class"
