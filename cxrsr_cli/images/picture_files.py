"""Pictures as files: PNG, TIFF, JPEG and NumPy arrays, at their full bit depth."""

import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin
from pydicom.dataset import Dataset
from pydicom.uid import UID, SecondaryCaptureImageStorage
from pydicom.valuerep import format_number_as_ds

from cxrsr_cli.common.files import open_regular
from cxrsr_cli.dicom.acceptance import MAX_WORK_PIXELS
from cxrsr_cli.dicom.source import (
    HEAD_BYTES,
    DicomSource,
    has_dicom_prefix,
    read_source,
    to_file,
)
from cxrsr_cli.errors import InputError, OutputError, UnreadableFileError, UnsupportedImageError

FORMATS = {
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".npy": "NPY",
}
"""The format that a suffix states."""
WRITABLE_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
"""JPEG would lose what the network made."""

_MAGIC = {
    b"\x89PNG": ".png",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"\xff\xd8\xff": ".jpg",
    npy.MAGIC_PREFIX: ".npy",
}
_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _PHOTOMETRIC = 258, 339, 262
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
"""TIFF tags."""
_INCH, _CENTIMETRE = 2, 3
"""Values of ResolutionUnit."""
_SIGNED, _FLOAT = 2, 3
"""Values of SampleFormat."""
_MM_PER_INCH = 25.4
_MIN_MM, _MAX_MM = 1e-4, 1e4
"""Spacings that every format can state."""
_PLUGINS: dict[str, Callable[[BinaryIO], ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
}
_UID = UID("2.25.0")
"""Stands for the UIDs of an object that is never written."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A grey image, larger values brighter unless its maker says otherwise.

    Attributes
    ----------
    values : numpy.ndarray
        ``(H, W)`` uint8, uint16 or int16.
    bits : int
        Bits of a value, 8 to 16; at most those of the type.
    spacing : tuple of float or None
        Millimetres from row to row and from column to column, if the file states them.
    """

    values: NDArray[np.integer]
    bits: int
    spacing: tuple[float, float] | None = None

    @property
    def minimum(self) -> int:
        """Smallest legal value."""
        return -(1 << self.bits - 1) if self.values.dtype.kind == "i" else 0

    @property
    def maximum(self) -> int:
        """Largest legal value."""
        return self.minimum + (1 << self.bits) - 1


def is_picture(path: Path) -> bool:
    """Return whether the suffix is that of a picture; all other images are DICOM."""
    return path.suffix.lower() in FORMATS


def suffix_of_content(beginning: bytes) -> str:
    """Return the suffix of a file by its first `HEAD_BYTES`; ``.dcm`` if it is no picture."""
    if has_dicom_prefix(beginning):  # the preamble may be that of a TIFF
        return ".dcm"
    return next((_MAGIC[magic] for magic in _MAGIC if beginning.startswith(magic)), ".dcm")


def check_formats(source: Path, target: Path) -> None:
    """Refuse an output of a format that cannot be made of the input.

    Raises
    ------
    OutputError
        If the output is JPEG, or a DICOM object of a picture.
    """
    if is_picture(target) and target.suffix.lower() not in WRITABLE_SUFFIXES:
        raise OutputError(
            "{path}: JPEG is lossy; choose .png, .tif or .npy, in a folder by --suffix", target
        )
    if is_picture(source) and not is_picture(target):
        raise OutputError(
            "{path}: a picture has no patient and no study, so it makes no DICOM object; choose "
            ".png, .tif or .npy",
            target,
        )


def check_picture(target: Path, frames: int, *, signed: bool, windowed: bool) -> None:
    """Refuse stored values that a format cannot hold, before any work is done.

    Parameters
    ----------
    target : Path
        The picture.
    frames : int
        Number of frames of the source.
    signed : bool
        Whether stored values may be negative.
    windowed : bool
        Whether it holds what a screen shows.

    Raises
    ------
    OutputError
        If there are several frames, or signed values in another format than NPY.
    """
    form = FORMATS[target.suffix.lower()]
    if frames > 1:
        raise OutputError(f"{{path}}: a picture has one frame, the input {frames}", target)
    if signed and form != "NPY" and not windowed:
        raise OutputError(
            f"{{path}}: {form} holds no signed values; choose .npy, or --windowed", target
        )


def read_picture(
    path: Path,
    bits: int | None = None,
    *,
    suffix: str | None = None,
    max_pixels: int = MAX_WORK_PIXELS,
) -> Picture:
    """Read a picture.

    Parameters
    ----------
    path : Path
        PNG, TIFF or JPEG with one grey channel of 8 or 16 bits, or 8-bit colour whose channels
        are equal; or NPY with a two-dimensional array of uint8, uint16 or int16.
    bits : int, optional
        Bits of a value, if they are fewer than the file could hold.
    suffix : str, optional
        States the format instead of the path's suffix.
    max_pixels : int
        Larger images are refused before they take memory.

    Raises
    ------
    UnreadableFileError
        If it cannot be read.
    UnsupportedImageError
        If it is another kind of image, or has values of more bits.
    """
    form = FORMATS[(suffix or path.suffix).lower()]
    try:
        with open_regular(path) as file:
            if has_dicom_prefix(file.read(HEAD_BYTES)):
                raise UnsupportedImageError(
                    f"a DICOM file with the name of a {form} file; rename it to .dcm"
                )
            file.seek(0)
            read = _read_array if form == "NPY" else _read_image
            with _library_errors(form):
                values, spacing = read(file, form, max_pixels)
    except OSError as error:
        raise UnreadableFileError(f"cannot read the file ({error.strerror})") from None
    if not values.size:
        raise UnsupportedImageError("the image is empty")
    if bits and bits > 8 * values.dtype.itemsize:
        raise UnsupportedImageError(
            f"its values have {8 * values.dtype.itemsize} bits, fewer than --bits {bits}"
        )
    picture = Picture(values, bits or 8 * values.dtype.itemsize, spacing)
    if values.min() < picture.minimum or values.max() > picture.maximum:
        raise UnsupportedImageError(
            f"values from {values.min()} to {values.max()} do not fit --bits {bits}"
        )
    return picture


def _read_array(file: BinaryIO, _form: str, max_pixels: int) -> tuple[NDArray[np.integer], None]:
    version = npy.read_magic(file)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if len(shape) != 2 or dtype.newbyteorder("=") not in (np.uint8, np.uint16, np.int16):
        raise UnsupportedImageError(
            f"an array of {len(shape)} dimensions and type {str(dtype)[:20]}; it must have two "
            "dimensions and uint8, uint16 or int16"
        )
    _check_pixels(math.prod(shape), max_pixels)
    held = os.fstat(file.fileno()).st_size - file.tell()
    if min(shape) < 0 or math.prod(shape) * dtype.itemsize > held:
        raise InputError("damaged NPY file: it is shorter than its header says")
    file.seek(0)
    values = np.load(file, allow_pickle=False)
    return values.astype(values.dtype.newbyteorder("="), copy=False), None


def _read_image(
    file: BinaryIO, form: str, max_pixels: int
) -> tuple[NDArray[np.integer], tuple[float, float] | None]:
    # Not by Image.open, which refuses images that are smaller than ours may be.
    with _PLUGINS[form](file) as image:
        _check_pixels(image.width * image.height, max_pixels)
        _check_one_upright_image(image)
        stated, is_signed, is_inverted = _stated_samples(file, image)
        if image.mode in ("P", "LA", "PA", "RGB", "RGBA"):
            values = _equal_channels(image)
        else:
            values = np.asarray(image)
        # Pillow reads some 16-bit files as int32, and 16-bit colour as 8 bits.
        if values.dtype == np.int32 and stated == 16:
            values = values.astype(np.int16 if is_signed else np.uint16)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        if values.ndim != 2 or values.dtype not in (np.uint8, np.uint16, np.int16):
            raise UnsupportedImageError("not a grey image of 8 or 16 bits")
        if stated > 8 * values.dtype.itemsize:
            raise UnsupportedImageError("colour of 16 bits; save it as a grey image")
        if is_signed and values.dtype == np.uint8:
            raise UnsupportedImageError("signed values of 8 bits; save them as 16 bits")
        if is_inverted and values.dtype == np.uint16:  # of 8 bits, Pillow does it
            values = np.iinfo(np.uint16).max - values
        return values, _spacing(image)


def _check_pixels(count: int, max_pixels: int) -> None:
    if count > max_pixels:
        raise UnsupportedImageError(f"more than {max_pixels >> 20} Mi pixels")


def _check_one_upright_image(image: ImageFile.ImageFile) -> None:
    """Refuse several images, and one that viewers turn before they show it."""
    if "transparency" in image.info:
        raise UnsupportedImageError("a transparent image; save it as a grey image")
    turn = image.getexif().get(ExifTags.Base.Orientation, 1)
    if turn != 1:
        raise UnsupportedImageError(
            f"EXIF orientation {turn}: viewers turn the image; save it upright"
        )
    # Counting them all would take long.
    with suppress(EOFError):
        image.seek(1)
        raise UnsupportedImageError("more than one image in the file")
    image.seek(0)


@contextmanager
def _library_errors(form: str) -> Iterator[None]:
    """Translate what Pillow and NumPy raise on damaged files."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    # They raise many types; those of the disk have a number.
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(f"damaged, or not a {form} file ({type(error).__name__})") from None


def _stated_samples(file: BinaryIO, image: ImageFile.ImageFile) -> tuple[int, bool, bool]:
    """Return the bits of a sample, and whether it is signed and larger values are darker."""
    if image.format == "PNG":
        file.seek(24)  # Bit depth in IHDR
        bits, is_float, is_signed, is_inverted = file.read(1)[0], False, False, False
    else:
        tags = getattr(image, "tag_v2", {})
        kind = tags.get(_SAMPLE_FORMAT, (1,))
        bits = max(tags.get(_BITS_PER_SAMPLE, (8,)))
        is_float, is_signed = _FLOAT in kind, _SIGNED in kind
        is_inverted = tags.get(_PHOTOMETRIC) == 0
    if is_float or bits not in (8, 16):
        raise UnsupportedImageError(f"samples of {bits} bits; it must be integers of 8 or 16")
    return bits, is_signed, is_inverted


def _equal_channels(image: Image.Image) -> NDArray[np.uint8]:
    """Return the grey of a colour image whose channels are equal; one channel after the other."""
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.mode == "PA" else "RGB")
    *colours, last = image.getbands()
    if last == "A":
        if np.asarray(image.getchannel("A")).min() < 255:
            raise UnsupportedImageError("a transparent image; save it as a grey image")
    else:
        colours.append(last)
    first = np.asarray(image.getchannel(colours[0]))
    for name in colours[1:]:
        if not np.array_equal(first, np.asarray(image.getchannel(name))):
            raise UnsupportedImageError("a colour image; only grey images are upscaled")
    return first


def _spacing(image: Image.Image) -> tuple[float, float] | None:
    """Return the millimetres between rows and between columns, if the file itself states them.

    Where a file states none, Pillow gives a TIFF one pixel an inch, and a JPEG 72.
    """
    try:
        if image.format == "TIFF":
            tags = image.tag_v2  # type: ignore[attr-defined] # of TIFF images only
            unit = {_INCH: _MM_PER_INCH, _CENTIMETRE: 10.0}[tags[_RESOLUTION_UNIT]]
            across, down = float(tags[_X_RESOLUTION]), float(tags[_Y_RESOLUTION])
        elif image.format == "JPEG":
            unit = {1: _MM_PER_INCH, 2: 10.0}[image.info["jfif_unit"]]
            across, down = (float(count) for count in image.info["jfif_density"])
        else:
            unit = _MM_PER_INCH
            across, down = (float(count) for count in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not (math.isfinite(across) and math.isfinite(down) and across > 0 and down > 0):
        return None
    return unit / down, unit / across


def write_picture(picture: Picture, path: Path, suffix: str) -> None:
    """Write a picture, and read it back.

    Parameters
    ----------
    picture : Picture
        Of a type that the format holds (`check_picture`).
    path : Path
        File to write, under any name.
    suffix : str
        States the format.

    Raises
    ------
    OSError
        If it cannot be written.
    OutputError
        If it does not read back the same.
    """
    values, form, options = picture.values, FORMATS[suffix.lower()], dict[str, Any]()
    if picture.spacing and all(_MIN_MM <= length <= _MAX_MM for length in picture.spacing):
        down, across = picture.spacing
        options["dpi"] = (_MM_PER_INCH / across, _MM_PER_INCH / down)
    with path.open("wb") as file:
        if form == "NPY":
            np.save(file, values)
        else:
            Image.fromarray(values).save(file, form, **options)
    try:
        again = read_picture(path, suffix=suffix, max_pixels=values.size).values
    except InputError as error:
        raise OutputError(f"the written file does not read back: {error}") from None
    if not np.array_equal(again, values):
        raise OutputError("the written file does not read back the same")


def picture_source(picture: Picture) -> DicomSource:
    """Return a picture as an object in memory, which is only upscaled and never written."""
    dataset, values = Dataset(), np.ascontiguousarray(picture.values)
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = dataset.StudyInstanceUID = dataset.SeriesInstanceUID = _UID
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = values.shape
    dataset.BitsAllocated = 8 * values.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = picture.bits, picture.bits - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    if picture.spacing:
        dataset.PixelSpacing = [format_number_as_ds(length) for length in picture.spacing]
    dataset.PixelData = values.tobytes() + b"\0" * (values.nbytes % 2)
    return read_source(to_file(dataset))
