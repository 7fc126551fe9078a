"""Read grayscale images from pictures and DICOM at full bit depth, for training and evaluation."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cxrsr_cli.dicom.acceptance import AcceptanceOverride, check_acceptance
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.dicomdir import is_dicomdir
from cxrsr_cli.dicom.pixel_format import Padding, PixelFormat, PixelRange, fill_padding
from cxrsr_cli.dicom.source import HEAD_BYTES, has_dicom_prefix, read_source
from cxrsr_cli.errors import ConfigError, InputError, NoInputError
from cxrsr_cli.images.picture_files import FORMATS, is_picture, read_picture
from cxrsr_cli.networks.resampling import downsample

_DICOM_SUFFIXES = (".dcm", ".dicom")


@dataclass(frozen=True, slots=True)
class GrayscaleImage:
    """One grayscale image.

    Attributes
    ----------
    name : str
        File name without the suffix of its format.
    values : torch.Tensor
        ``(1, 1, H, W)`` float32 stored values.
    maximum, minimum : float
        Legal range of stored values; for a picture that of its type.
    inverted : bool
        Whether large values are dark (MONOCHROME1).
    """

    name: str
    values: torch.Tensor
    maximum: float
    minimum: float = 0.0
    inverted: bool = False

    @property
    def pixel_range(self) -> PixelRange:
        """Legal range and polarity of stored values."""
        return PixelRange(self.minimum, self.maximum, self.inverted)

    @property
    def data_range(self) -> float:
        """Data range of metrics: largest minus smallest legal stored value."""
        return self.maximum - self.minimum

    def downsample(self, scale: int) -> torch.Tensor:
        """Make the low-resolution image, at the bit depth of this one.

        Parameters
        ----------
        scale : int
            Factor; height and width must be multiples of it.

        Returns
        -------
        torch.Tensor
            ``(1, 1, H / scale, W / scale)`` float32, whole stored values within
            the legal range.
        """
        return downsample(self.values, scale).round_().clamp_(self.minimum, self.maximum)


def list_image_files(path: Path) -> list[Path]:
    """List the images of a folder or of a list file.

    Parameters
    ----------
    path : Path
        A folder, which is searched recursively for pictures and for DICOM files
        of any name; or a text file with one path per line, relative to the
        text file. Empty lines and lines that begin with ``#`` are ignored.

    Returns
    -------
    list of Path
        The files of a folder sorted, those of a list in its order.

    Raises
    ------
    ConfigError
        If a list cannot be read or contains a file twice.
    NoInputError
        If there is no image.
    """
    if path.is_file():
        return _read_list(path)
    paths = sorted(file for file in path.rglob("*") if file.is_file() and _is_image(file))
    if not paths:
        raise NoInputError(f"no image ({', '.join(FORMATS)}, DICOM) below {path}")
    return paths


def read_images(
    path: Path, multiple: int, allowed: frozenset[AcceptanceOverride] = frozenset()
) -> list[GrayscaleImage]:
    """Read the images of a file, each cropped to a multiple of the scale.

    Pixel padding around a DICOM image is cropped. Padding inside of the image
    is filled from the nearest image pixel, as `cxrsr_cli.upscaler` does.

    Parameters
    ----------
    path : Path
        A picture or a DICOM file.
    multiple : int
        Height and width are cropped to a multiple of it, at the bottom and the
        right.
    allowed : frozenset of AcceptanceOverride
        Kinds of DICOM images that are accepted in addition to chest radiographs
        for presentation.

    Returns
    -------
    list of GrayscaleImage
        One for a picture, one for each frame of a DICOM file.

    Raises
    ------
    InputError
        If the file cannot be read or used. The message does not name it.
    """
    if is_picture(path):
        picture = read_picture(path)
        values = _crop(picture.values, multiple)
        return [GrayscaleImage(path.stem, values, float(picture.maximum), float(picture.minimum))]
    source = read_source(path)
    check_acceptance(source.dataset, 1, allowed)
    pixel_format = PixelFormat.from_dataset(source.dataset)
    padding = Padding.from_dataset(source.dataset)
    images = []
    for frame in decode(source):
        stored = _crop_padding(frame, padding) if padding else frame
        images.append(
            GrayscaleImage(
                path.stem if path.suffix.lower() in _DICOM_SUFFIXES else path.name,
                _crop(stored, multiple),
                maximum=float(pixel_format.maximum),
                minimum=float(pixel_format.minimum),
                inverted=source.dataset.PhotometricInterpretation == "MONOCHROME1",
            )
        )
    return images


def _crop(stored: NDArray[np.integer], multiple: int) -> torch.Tensor:
    """Crop stored values to a multiple of the scale."""
    height, width = (side - side % multiple for side in stored.shape)
    if not height or not width:
        raise InputError("smaller than the scale")
    return torch.from_numpy(stored[:height, :width].astype(np.float32))[None, None]


def _read_list(path: Path) -> list[Path]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the list {path}: {type(error).__name__}") from error
    names = [line.strip() for line in lines]
    paths = [path.parent / name for name in names if name and not name.startswith("#")]
    if not paths:
        raise NoInputError(f"the list {path} contains no image")
    if len(set(paths)) < len(paths):
        raise ConfigError(f"the list {path} contains a file twice")
    return paths


def _is_image(path: Path) -> bool:
    if is_picture(path) or path.suffix.lower() in _DICOM_SUFFIXES:
        return True
    if is_dicomdir(path):
        return False
    # Many archives use the UID as the name, so the suffix can be anything.
    try:
        with path.open("rb") as file:
            return has_dicom_prefix(file.read(HEAD_BYTES))
    except OSError:
        return False


def _crop_padding(stored: NDArray[np.int32], padding: Padding) -> NDArray[np.int32]:
    mask = padding.mask(stored)
    rows, columns = np.flatnonzero(~mask.all(1)), np.flatnonzero(~mask.all(0))
    if not rows.size:
        raise InputError("all pixels are padding")
    inside = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return fill_padding(stored[inside], mask[inside])
