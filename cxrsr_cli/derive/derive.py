"""Build the derived object from the source object and the upscaled pixels."""

import copy
import hashlib
from datetime import datetime
from functools import cache

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRLittleEndian

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.derive import provenance
from cxrsr_cli.derive.geometry import PIXEL_GEOMETRY, rescale_geometry
from cxrsr_cli.derive.overlays import is_overlay_or_curve, upscale_overlays
from cxrsr_cli.derive.private_elements import drop_private, drop_untrue_private
from cxrsr_cli.derive.provenance import mark_lossy, remove_invalidated, write_provenance
from cxrsr_cli.derive.required_attributes import lost_attributes
from cxrsr_cli.derive.uids import DerivationParameters, hash_header
from cxrsr_cli.dicom.identifiers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from cxrsr_cli.dicom.pixel_format import PixelFormat
from cxrsr_cli.dicom.raw_elements import sequence_items
from cxrsr_cli.dicom.source import DicomSource
from cxrsr_cli.dicom.write import PixelDataStream
from cxrsr_cli.errors import InternalError, UnsupportedImageError

_PIXEL_DATA = Tag("PixelData")
_UNDEFINED_LENGTH = 0xFFFFFFFF
_PIXEL_EXTREMES = (("SmallestImagePixelValue", np.min), ("LargestImagePixelValue", np.max))


def derive(
    source: DicomSource,
    source_pixels: NDArray[np.int32],
    pixels: NDArray[np.integer],
    parameters: DerivationParameters,
    now: datetime,
    *,
    agreement: str,
) -> tuple[FileDataset, list[str]]:
    """Make the derived object.

    Every element that does not have to change keeps the bytes of the source file.

    Parameters
    ----------
    source : DicomSource
        The original as read.
    source_pixels, pixels : numpy.ndarray
        ``(F, H, W)`` and ``(F, scale * H, scale * W)`` stored values. The object refers to
        the second array, without a copy.
    parameters : DerivationParameters
        How one became the other.
    now : datetime
        Time of the derivation, with its time zone.
    agreement : str
        How the new pixels agree with the source's, for the Derivation Description; ASCII.

    Returns
    -------
    derived : pydicom.dataset.FileDataset
        Uncompressed, ready to write; Pixel Data is a `PixelDataStream`.
    warnings : list of str
        What was dropped or kept unchanged, without patient data.

    Raises
    ------
    UnsupportedImageError
        If the source's geometry cannot be rescaled, and cannot be left out.
    InternalError
        If an attribute that the standard requires was lost.
    """
    pixel_format = PixelFormat.from_dataset(source.dataset)
    with quiet_libraries():
        derived = copy.deepcopy(source.raw_dataset)
        warnings = list[str]()
        if parameters.options.keep_private:
            warnings += drop_untrue_private(derived, source.dataset)
        else:
            drop_private(derived)
        remove_invalidated(derived, parameters)
        warnings += drop_compressed_copies(derived)
        mark_lossy(derived, source)
        sha256 = (
            hashlib.sha256(np.ascontiguousarray(source_pixels, dtype="<i4").data).hexdigest(),
            hash_header(derived),
        )
        warnings += rescale_geometry(derived, source.dataset, parameters.options.scale)
        warnings += upscale_overlays(derived, source, parameters.options.scale)
        warnings += write_provenance(derived, source, parameters, sha256, now, agreement)
        _write_pixels(derived, pixels, pixel_format)
        _check_required_attributes(derived, source.dataset)
        meta = _file_meta(derived)
    file_dataset = FileDataset("", derived, preamble=b"\0" * 128, file_meta=meta)
    implicit, little_endian = source.raw_dataset.original_encoding
    file_dataset.set_original_encoding(
        implicit, little_endian, source.raw_dataset.original_character_set
    )
    return file_dataset, warnings


def _write_pixels(derived: Dataset, pixels: NDArray[np.integer], pixel_format: PixelFormat) -> None:
    vr = "OW" if pixel_format.bits_allocated > 8 else "OB"
    derived.add_new("PixelData", vr, PixelDataStream(pixels, pixel_format))
    for keyword, extreme in _PIXEL_EXTREMES:
        if keyword in derived:
            derived.add_new(keyword, "SS" if pixel_format.signed else "US", int(extreme(pixels)))


def _check_required_attributes(derived: Dataset, source: Dataset) -> None:
    """Refuse an object that lacks more than its source.

    Values that cannot be rescaled are dropped, which the standard may not allow. Any other
    loss is a defect of this software.
    """
    paths = sorted(lost.path for lost in lost_attributes(derived, source))
    if paths and set(paths) <= {line.keyword for line in PIXEL_GEOMETRY}:
        raise UnsupportedImageError(
            f"{', '.join(paths)} cannot be rescaled, and the object must have it"
        )
    if paths:
        raise InternalError(f"the output would lack {', '.join(paths)}; please report it")


def _file_meta(derived: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = derived.SOPClassUID
    meta.MediaStorageSOPInstanceUID = derived.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta


def drop_compressed_copies(dataset: Dataset) -> list[str]:
    """Remove what is encapsulated besides Pixel Data, in place; return a warning for each.

    That is sequences with compressed pixels, which would be illegal in another transfer
    syntax, and single elements, which are illegal in any (PS3.5 A.4).
    """
    warnings = []
    for tag in [tag for tag in dataset.keys() if tag != _PIXEL_DATA]:
        name = keyword_for_tag(tag)
        if name not in provenance.INVALIDATED and _is_encapsulated(dataset, tag):
            del dataset[tag]
            warnings.append(f"{name or 'a private element'} was dropped: it has compressed pixels")
    return warnings


def _is_encapsulated(dataset: Dataset, tag: BaseTag) -> bool:
    """Return whether an element consists of fragments, or has a nested one that does."""
    items = sequence_items(dataset, tag)
    if items is not None:
        return any(_is_encapsulated(item, nested) for item in items for nested in list(item.keys()))
    element = dataset.get_item(tag)
    if isinstance(element, RawDataElement):
        return element.length == _UNDEFINED_LENGTH
    return bool(element.is_undefined_length)


def is_modified(tag: BaseTag) -> bool:
    """Return whether a derivation writes, removes or rescales a top-level element."""
    return is_overlay_or_curve(tag) or keyword_for_tag(tag) in _modified_keywords()


@cache
def _modified_keywords() -> frozenset[str]:
    return frozenset((
        "PixelData",
        *(keyword for keyword, _ in _PIXEL_EXTREMES),
        *(line.element for line in PIXEL_GEOMETRY),
        *provenance.WRITTEN_KEYWORDS,
        *provenance.INVALIDATED,
        *provenance.LOSSY_KEYWORDS,
    ))  # fmt: skip
