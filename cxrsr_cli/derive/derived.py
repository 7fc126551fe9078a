"""Build the derived object from the source object and new pixels."""

import copy
import hashlib
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from cxrsr_cli.derive.geometry import rescale_geometry
from cxrsr_cli.derive.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, Recipe
from cxrsr_cli.derive.lossy import keep_lossy_history
from cxrsr_cli.derive.overlays import magnify_overlays
from cxrsr_cli.derive.private import drop_caches, drop_private
from cxrsr_cli.derive.provenance import identify
from cxrsr_cli.derive.required import lost_attributes
from cxrsr_cli.derive.stream import CellStream
from cxrsr_cli.errors import UnexpectedError
from cxrsr_cli.read.cells import PixelFormat
from cxrsr_cli.read.dataset import Source
from cxrsr_cli.read.silence import quiet_pydicom


def derive(
    source: Source,
    source_pixels: NDArray[np.int32],
    pixels: NDArray[np.integer],
    recipe: Recipe,
    now: datetime,
) -> tuple[FileDataset, list[str]]:
    """Make the derived object.

    Every element that does not have to change is the source file's bytes.

    Parameters
    ----------
    source : Source
        The original as read.
    source_pixels, pixels : numpy.ndarray
        ``(F, H, W)`` and ``(F, scale * H, scale * W)`` stored values. The
        object keeps the second, without a copy.
    recipe : Recipe
        How one became the other.
    now : datetime
        Time of the derivation, with its zone.

    Returns
    -------
    derived : pydicom.dataset.FileDataset
        Uncompressed, ready to write; Pixel Data is a `CellStream`.
    warnings : list of str
        What was kept or dropped with reserve, free of patient data.

    Raises
    ------
    UnsupportedImageError
        If the source's geometry cannot be rescaled.
    UnexpectedError
        If an attribute that the standard requires of the object was lost.
    """
    pixel_format = PixelFormat.of(source.dataset)
    with quiet_pydicom():
        derived = copy.deepcopy(source.pristine)
        warnings = _sort_out_private(derived, source, recipe)
        warnings += rescale_geometry(derived, source.dataset, recipe.scale)
        warnings += magnify_overlays(derived, source, recipe.scale)
        keep_lossy_history(derived, source)
        warnings += identify(derived, source.dataset, recipe, _sha256(source_pixels), now)
        _write_pixels(derived, pixels, pixel_format)
        _check_nothing_required_was_lost(derived, source.dataset)
        meta = _file_meta(derived)
    file_dataset = FileDataset("", derived, preamble=b"\0" * 128, file_meta=meta)
    file_dataset.set_original_encoding(
        source.transfer_syntax.is_implicit_VR,
        source.transfer_syntax.is_little_endian,
        source.pristine.original_character_set,
    )
    return file_dataset, warnings


def _sort_out_private(derived: Dataset, source: Source, recipe: Recipe) -> list[str]:
    if recipe.keep_private:
        return drop_caches(derived, source.dataset.Rows * source.dataset.Columns)
    drop_private(derived)
    return []


def _write_pixels(derived: Dataset, pixels: NDArray[np.integer], pixel_format: PixelFormat) -> None:
    word = "OW" if pixel_format.bits_allocated > 8 else "OB"
    derived.add_new("PixelData", word, CellStream(pixels, pixel_format))
    vr = "SS" if pixel_format.signed else "US"
    for keyword, extreme in (
        ("SmallestImagePixelValue", np.min),
        ("LargestImagePixelValue", np.max),
    ):
        if keyword in derived:
            derived.add_new(keyword, vr, int(extreme(pixels)))


def _check_nothing_required_was_lost(derived: Dataset, source: Dataset) -> None:
    """Refuse to write what a defect of this program made worse than its source."""
    paths = sorted(lost.path for lost in lost_attributes(derived, source))
    if paths:
        raise UnexpectedError(f"the output would lack {', '.join(paths)}; please report it")


def _file_meta(derived: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = derived.SOPClassUID
    meta.MediaStorageSOPInstanceUID = derived.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta


def _sha256(pixels: NDArray[np.int32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels, dtype="<i4").data).hexdigest()
