"""What objects say about themselves, with or without what names a patient."""

from collections.abc import Iterator, Sequence

from pydicom.datadict import dictionary_description
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.comparison.compare import Shown
from cxrsr_cli.dicom.attributes import sop_class_name
from cxrsr_cli.images.picture_files import FORMATS, is_picture

IMAGE_KEYWORDS = (
    "ImageType", "Modality", "BodyPartExamined", "ViewPosition", "PresentationIntentType",
    "Rows", "Columns", "NumberOfFrames", "BitsStored", "PixelRepresentation",
    "PhotometricInterpretation", "PixelSpacing", "ImagerPixelSpacing",
    "NominalScannedPixelSpacing", "PixelSpacingCalibrationType", "WindowCenter", "WindowWidth",
    "VOILUTFunction", "RescaleSlope", "RescaleIntercept", "BurnedInAnnotation",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
    "Manufacturer", "ManufacturerModelName", "DetectorType", "KVP",
)  # fmt: skip
"""Attributes of the image and of its making, which name nobody."""

PATIENT_KEYWORDS = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "StudyDate",
    "StudyTime", "AccessionNumber", "StudyDescription", "SeriesDescription", "InstitutionName",
    "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID",
)  # fmt: skip
"""Attributes that name a patient, or lead to one."""

_PICTURE_KEYWORDS = "Rows", "Columns", "BitsStored"
_DERIVATION = "DerivationDescription"
_EARLIER = ". Earlier: "
"""Begins what others wrote in Derivation Description."""
_OWN_BEGINNING = "Enlarged x"
_MAX_CHARACTERS = 1024


def statements(shown: Sequence[Shown], *, with_patient: bool) -> Iterator[tuple[str, ...]]:
    """Yield rows of a table: an attribute's name, and its value in each object.

    Parameters
    ----------
    shown : sequence of Shown
        The images. Of a picture there are its format, size, bits and spacing.
    with_patient : bool
        Whether `PATIENT_KEYWORDS` are included, and free text that others may have written.

    Yields
    ------
    tuple of str
        Not escaped.
    """
    datasets = [_stated(each) for each in shown]
    yield "SOP Class or format", *map(_format, shown)
    yield (
        "Transfer Syntax",
        *("" if is_picture(each.path) else each.source.transfer_syntax.name for each in shown),
    )
    for keyword in (*(PATIENT_KEYWORDS if with_patient else ()), *IMAGE_KEYWORDS):
        values = tuple(_text(dataset, keyword) for dataset in datasets)
        if any(values):
            yield dictionary_description(keyword), *values
    spacings = tuple(_file_spacing(each) for each in shown)
    if any(spacings):
        yield "Spacing (mm), as the file states", *spacings
    derivations = tuple(_derivation(dataset, whole=with_patient) for dataset in datasets)
    if any(derivations):
        yield dictionary_description(_DERIVATION), *derivations


def _stated(shown: Shown) -> Dataset:
    dataset = shown.source.dataset
    if not is_picture(shown.path):
        return dataset
    stated = Dataset()
    for keyword in _PICTURE_KEYWORDS:
        if keyword in dataset:
            stated[keyword] = dataset[keyword]
    return stated


def _format(shown: Shown) -> str:
    if is_picture(shown.path):
        return FORMATS[shown.path.suffix.lower()]
    return sop_class_name(shown.source.dataset)


def _file_spacing(shown: Shown) -> str:
    """Return the spacing of a picture, which is no attribute: its file states pixels per inch."""
    return _text(shown.source.dataset, "PixelSpacing") if is_picture(shown.path) else ""


def _text(dataset: Dataset, keyword: str) -> str:
    with quiet_libraries():
        value = dataset.get(keyword)
    if value is None:
        return ""
    values = value if isinstance(value, MultiValue) else [value]
    return " \\ ".join(map(str, values))[:_MAX_CHARACTERS]


def _derivation(dataset: Dataset, *, whole: bool) -> str:
    text = _text(dataset, _DERIVATION)
    if whole:
        return text
    return text.partition(_EARLIER)[0] if text.startswith(_OWN_BEGINNING) else ""
