"""The images that methods are judged on, at their full depth."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cxrsr_cli.errors import InputError, NothingToDoError
from cxrsr_cli.learn.images import SUFFIXES, read_image
from cxrsr_cli.read.acceptance import check_acceptance
from cxrsr_cli.read.dataset import read_source
from cxrsr_cli.read.media import is_media_directory
from cxrsr_cli.read.padding import Padding
from cxrsr_cli.read.pixels import PixelFormat, decode
from cxrsr_cli.restore.padding import fill

DICOM_SUFFIXES = (".dcm", ".dicom")

_PREAMBLE = 128


@dataclass(frozen=True, slots=True)
class Original:
    """An image that is degraded, and what comes back is compared with.

    Attributes
    ----------
    name : str
        File name without the suffix of its format.
    values : torch.Tensor
        ``(1, 1, H, W)`` float32 stored values.
    minimum, maximum : float
        Legal range of stored values.
    inverted : bool
        True for MONOCHROME1: the network is told, the metrics are not.
    """

    name: str
    values: torch.Tensor
    minimum: float
    maximum: float
    inverted: bool = False

    @property
    def span(self) -> float:
        """Data range of the metrics: largest minus smallest legal stored value."""
        return self.maximum - self.minimum

    @property
    def megapixels(self) -> float:
        """Millions of pixels."""
        return self.values.numel() / 1e6


def list_originals(folder: Path) -> list[Path]:
    """List the grey images and DICOM files below `folder`, sorted.

    Raises
    ------
    NothingToDoError
        If there is none.
    """
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES or (path.is_file() and _is_dicom(path))
    )
    if not paths:
        raise NothingToDoError(f"no image ({', '.join(SUFFIXES)}) and no DICOM file below {folder}")
    return paths


def read_original(path: Path, multiple: int) -> Original:
    """Read an image, cut to a multiple of the scale.

    Parameters
    ----------
    path : Path
        A grey image of 8 or 16 bits, or a DICOM radiograph of 8 to 16 bits.
    multiple : int
        Height and width are cut at the bottom and right to a multiple of it.

    Returns
    -------
    Original
        Its stored values; pixel padding is filled from the image beside it,
        as `upscale` does before it enlarges.

    Raises
    ------
    InputError
        If it cannot be read or is not one that `upscale` would take.
    """
    if path.suffix.lower() in SUFFIXES:
        image = read_image(path, multiple)
        return Original(image.name, image.values, 0.0, image.maximum)
    try:
        return _read_dicom(path, multiple)
    except InputError as error:
        raise type(error)(f"{path.name}: {error}") from error


def _read_dicom(path: Path, multiple: int) -> Original:
    source = read_source(path)
    check_acceptance(source.dataset, 1, frozenset())
    frames = decode(source)
    if len(frames) != 1:
        raise InputError(f"{len(frames)} frames; originals have one")
    stored, padding = frames[0], Padding.of(source.dataset)
    if padding:
        stored = fill(stored, padding.mask(stored))
    height, width = (side - side % multiple for side in stored.shape)
    if not height or not width:
        raise InputError("smaller than the scale")
    limits = PixelFormat.of(source.dataset)
    suffixed = path.suffix.lower() in DICOM_SUFFIXES
    return Original(
        name=path.stem if suffixed else path.name,
        values=torch.from_numpy(stored[:height, :width].astype(np.float32))[None, None],
        minimum=float(limits.minimum),
        maximum=float(limits.maximum),
        inverted=source.dataset.PhotometricInterpretation == "MONOCHROME1",
    )


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    if is_media_directory(path):
        return False
    with path.open("rb") as opened:
        return opened.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"
