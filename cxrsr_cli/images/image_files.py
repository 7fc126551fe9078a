"""Images to learn from and to judge on: pictures and DICOM, in folders or lists, at full depth."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cxrsr_cli.dicom.acceptance import AcceptanceOverride, check_acceptance
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.dicomdir import is_dicomdir
from cxrsr_cli.dicom.pixel_format import Padding, PixelFormat, fill_padding
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import ConfigError, InputError, NoInputError

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True)
class GrayscaleImage:
    """One image.

    Attributes
    ----------
    name : str
        File name without the suffix of its format.
    values : torch.Tensor
        ``(1, 1, H, W)`` float32 stored values.
    maximum, minimum : float
        Legal range of stored values: 0 to 255 or 65535 of a picture.
    inverted : bool
        Whether large values are dark (MONOCHROME1).
    """

    name: str
    values: torch.Tensor
    maximum: float
    minimum: float = 0.0
    inverted: bool = False

    @property
    def data_range(self) -> float:
        """Data range of metrics: largest minus smallest legal stored value."""
        return self.maximum - self.minimum

    @property
    def megapixels(self) -> float:
        """Millions of pixels."""
        return self.values.numel() / 1e6


def list_images(folder: Path) -> list[Path]:
    """List the images below `folder`, sorted.

    Raises
    ------
    NothingToDoError
        If there is none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise NoInputError(f"no image ({', '.join(SUFFIXES)}) below {folder}")
    return paths


def read_image(path: Path, multiple: int) -> GrayscaleImage:
    """Read one grey image, cut to a multiple of the scale.

    Parameters
    ----------
    path : Path
        8-bit or 16-bit file with one channel.
    multiple : int
        Height and width are cut at the bottom and right to a multiple of it.

    Returns
    -------
    GreyImage
        The stored values.

    Raises
    ------
    InputError
        If the file cannot be read or is not a grey 8-bit or 16-bit image.
    """
    try:
        with Image.open(path) as opened:
            pixels = np.asarray(opened)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read the image {path.name}") from error
    if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path.name} is not a grey image of 8 or 16 bits")
    height, width = (side - side % multiple for side in pixels.shape)
    if not height or not width:
        raise InputError(f"{path.name} is smaller than the scale")
    values = torch.from_numpy(pixels[:height, :width].astype(np.float32))[None, None]
    return GrayscaleImage(path.stem, values, float(np.iinfo(pixels.dtype).max))


_PREAMBLE = 128
_PREFIX = b"DICM"
_DICOM_SUFFIXES = (".dcm", ".dicom")


def list_image_files(place: Path) -> list[Path]:
    """List the images of a folder or of a list.

    Parameters
    ----------
    place : Path
        A folder, searched recursively for pictures and for DICOM under any
        name; or a text file with one path a line, relative to itself, where
        empty lines and those after ``#`` say nothing.

    Returns
    -------
    list of Path
        A folder's sorted, a list's in its order.

    Raises
    ------
    ConfigError
        If a list cannot be read or names one file twice.
    NothingToDoError
        If there is no image.
    """
    if place.is_file():
        return _read_list(place)
    paths = sorted(path for path in place.rglob("*") if path.is_file() and _is_image(path))
    if not paths:
        raise NoInputError(f"no image ({', '.join(SUFFIXES)}, DICOM) below {place}")
    return paths


def is_picture(path: Path) -> bool:
    """Tell by its suffix whether a file is a picture; all others are DICOM."""
    return path.suffix.lower() in SUFFIXES


def read_images(
    path: Path, multiple: int, allowed: frozenset[AcceptanceOverride] = frozenset()
) -> list[GrayscaleImage]:
    """Read the images of a file, each cut to a multiple of the scale.

    Padding around a DICOM image is cut off; what is left of it inside is
    filled from its nearest image pixel, as `cxrsr_cli.upscaler` does.

    Parameters
    ----------
    path : Path
        A picture or DICOM.
    multiple : int
        Height and width are cut at the bottom and right to a multiple of it.
    allowed : frozenset of Permission
        DICOM beyond chest radiographs for presentation that is taken.

    Returns
    -------
    list of GreyImage
        One of a picture, one for each frame of DICOM.

    Raises
    ------
    InputError
        If the file cannot be read or used.
    """
    if is_picture(path):
        return [read_image(path, multiple)]
    source = read_source(path)
    check_acceptance(source.dataset, 1, allowed)
    pixel_format, padding = (
        PixelFormat.from_dataset(source.dataset),
        Padding.from_dataset(source.dataset),
    )
    images = []
    for frame in decode(source):
        stored = _crop_padding(frame, padding) if padding else frame
        height, width = (side - side % multiple for side in stored.shape)
        if not height or not width:
            raise InputError("smaller than the scale")
        images.append(
            GrayscaleImage(
                path.stem if path.suffix.lower() in _DICOM_SUFFIXES else path.name,
                torch.from_numpy(stored[:height, :width].astype(np.float32))[None, None],
                maximum=float(pixel_format.maximum),
                minimum=float(pixel_format.minimum),
                inverted=source.dataset.PhotometricInterpretation == "MONOCHROME1",
            )
        )
    return images


def _read_list(path: Path) -> list[Path]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the list {path}: {type(error).__name__}") from error
    names = [line.strip() for line in lines]
    paths = [path.parent / name for name in names if name and not name.startswith("#")]
    if not paths:
        raise NoInputError(f"the list {path} names no image")
    if len(set(paths)) < len(paths):
        raise ConfigError(f"the list {path} names a file twice")
    return paths


def _is_image(path: Path) -> bool:
    if is_picture(path) or path.suffix.lower() in _DICOM_SUFFIXES:
        return True
    if is_dicomdir(path):
        return False
    # Many archives name files by UID, with anything after the last dot.
    try:
        with path.open("rb") as opened:
            opened.seek(_PREAMBLE)
            return opened.read(len(_PREFIX)) == _PREFIX
    except OSError:
        return False


def _crop_padding(stored: NDArray[np.int32], padding: Padding) -> NDArray[np.int32]:
    mask = padding.mask(stored)
    rows, columns = np.flatnonzero(~mask.all(1)), np.flatnonzero(~mask.all(0))
    if not rows.size:
        raise InputError("nothing but padding")
    inside = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return fill_padding(stored[inside], mask[inside])
