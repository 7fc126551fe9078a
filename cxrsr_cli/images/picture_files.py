"""Pictures as files: PNG, TIFF, JPEG and NumPy arrays, at their full bit depth."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import UID, SecondaryCaptureImageStorage
from pydicom.valuerep import format_number_as_ds

from cxrsr_cli.common.files import open_regular
from cxrsr_cli.dicom.acceptance import MAX_WORK_PIXELS
from cxrsr_cli.dicom.source import DicomSource, read_source, to_file
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
"""TIFF tags."""
_SIGNED, _FLOAT = 2, 3
"""Values of SampleFormat."""
_MM_PER_INCH = 25.4
_PREAMBLE_BYTES, _PREFIX = 128, b"DICM"
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
    """Return the suffix of a file by its first bytes; ``.dcm`` if they are of no picture."""
    return next((_MAGIC[magic] for magic in _MAGIC if beginning.startswith(magic)), ".dcm")


def check_formats(source: Path, target: Path) -> None:
    """Refuse an output of a format that cannot be made of the input.

    Raises
    ------
    OutputError
        If the output is JPEG, or a DICOM object of a picture.
    """
    if is_picture(target) and target.suffix.lower() not in WRITABLE_SUFFIXES:
        raise OutputError("{path}: JPEG is lossy; choose .png, .tif or .npy", target)
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


def read_picture(path: Path, bits: int | None = None, *, suffix: str | None = None) -> Picture:
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
            if file.read(_PREAMBLE_BYTES + len(_PREFIX))[_PREAMBLE_BYTES:] == _PREFIX:
                raise UnsupportedImageError(
                    f"a DICOM file with the name of a {form} file; rename it to .dcm"
                )
            file.seek(0)
            values, spacing = _read_array(file) if form == "NPY" else _read_image(file, form)
    except OSError as error:
        raise UnreadableFileError(f"cannot read the file ({error.strerror})") from None
    if not values.size:
        raise UnsupportedImageError("the image is empty")
    picture = Picture(values, bits or 8 * values.dtype.itemsize, spacing)
    if values.min() < picture.minimum or values.max() > picture.maximum:
        raise UnsupportedImageError(
            f"values from {values.min()} to {values.max()} do not fit --bits {bits}"
        )
    return picture


def _read_array(file: BinaryIO) -> tuple[NDArray[np.integer], None]:
    try:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
        _check_pixels(math.prod(shape))
        if len(shape) != 2 or dtype.newbyteorder("=") not in (np.uint8, np.uint16, np.int16):
            raise UnsupportedImageError(
                f"an array of shape {shape} and type {dtype}; it must have two dimensions and "
                "uint8, uint16 or int16"
            )
        file.seek(0)
        values = np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"damaged NPY file ({type(error).__name__})") from None
    return values.astype(values.dtype.newbyteorder("="), copy=False), None


def _read_image(
    file: BinaryIO, form: str
) -> tuple[NDArray[np.integer], tuple[float, float] | None]:
    with _pillow_errors(form), Image.open(file, formats=[form]) as image:
        _check_pixels(image.width * image.height)
        if (count := getattr(image, "n_frames", 1)) > 1:
            raise UnsupportedImageError(f"{count} images in one file")
        stated, is_signed, is_inverted = _stated_samples(file, image)
        if image.mode in ("P", "LA", "PA", "RGB", "RGBA"):
            values = _equal_channels(np.asarray(image.convert("RGBA")))
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
        if is_inverted and values.dtype == np.uint16:  # of 8 bits, Pillow does it
            values = np.iinfo(np.uint16).max - values
        return values, _spacing(image)


def _check_pixels(count: int) -> None:
    if count > MAX_WORK_PIXELS:
        raise UnsupportedImageError(f"more than {MAX_WORK_PIXELS >> 20} Mi pixels")


@contextmanager
def _pillow_errors(form: str) -> Iterator[None]:
    """Translate what Pillow raises on damaged files."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    # On damaged files Pillow raises many types; those of the disk have a number.
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(f"damaged, or not a {form} file ({type(error).__name__})") from None


def _stated_samples(file: BinaryIO, image: Image.Image) -> tuple[int, bool, bool]:
    """Return the bits of a sample, and whether it is signed and larger values are darker."""
    if image.format == "PNG":
        file.seek(24)  # Bit depth in IHDR
        return file.read(1)[0], False, False
    tags = getattr(image, "tag_v2", {})
    bits, kind = tags.get(_BITS_PER_SAMPLE, (8,)), tags.get(_SAMPLE_FORMAT, (1,))
    if _FLOAT in kind or max(bits) > 16:
        raise UnsupportedImageError(f"samples of {max(bits)} bits; it must be integers of 8 or 16")
    return max(bits), _SIGNED in kind, tags.get(_PHOTOMETRIC) == 0


def _equal_channels(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    red = rgba[..., 0]
    if (rgba[..., 3] != 255).any():
        raise UnsupportedImageError("a transparent image; save it as a grey image")
    if (rgba[..., 1] != red).any() or (rgba[..., 2] != red).any():
        raise UnsupportedImageError("a colour image; only grey images are upscaled")
    return np.ascontiguousarray(red)


def _spacing(image: Image.Image) -> tuple[float, float] | None:
    """Return the millimetres between rows and between columns, as the file states them."""
    try:
        across, down = (float(dpi) for dpi in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not (math.isfinite(across) and math.isfinite(down) and across > 0 and down > 0):
        return None
    return _MM_PER_INCH / down, _MM_PER_INCH / across


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
    if picture.spacing:
        down, across = picture.spacing
        options["dpi"] = (_MM_PER_INCH / across, _MM_PER_INCH / down)
    with path.open("wb") as file:
        if form == "NPY":
            np.save(file, values)
        else:
            Image.fromarray(values).save(file, form, **options)
    if not np.array_equal(read_picture(path, suffix=suffix).values, values):
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
