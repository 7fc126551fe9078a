"""Grey images of a folder, as stored values."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cxrsr_cli.errors import InputError, NoInputError

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
