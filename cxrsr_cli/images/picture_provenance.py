"""The JSON beside a picture: where it comes from, and what its values mean."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cxrsr_cli.common.files import atomic_write, has_schema, open_regular, permissions_of
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.dicom.attributes import pixel_spacing
from cxrsr_cli.errors import OutputError
from cxrsr_cli.images.display import Display, Preset
from cxrsr_cli.images.picture_files import FORMATS, Picture, is_picture
from cxrsr_cli.versions import NOTICE

SCHEMA = "cxrsr-picture/1"
"""New keys keep the number; a key that is removed or changes its meaning needs another one."""
_MAX_BYTES = 1 << 20
"""Of a JSON that is read; those that are written have a few kilobytes."""


class PictureValues(StrEnum):
    """What the values of a picture are."""

    STORED = "stored"
    """Those of the source's kind."""
    WINDOWED = "windowed"
    """What a screen shows, in 8 bits."""


@dataclass(frozen=True, slots=True)
class StatedProvenance:
    """What the JSON beside a picture states, as far as it is read.

    Attributes
    ----------
    model : str
        Name of the model, of printable characters.
    values : PictureValues
        What the values are.
    sha256 : str
        Of the picture's file. If the file has another one, the JSON says nothing about it.
    """

    model: str
    values: PictureValues
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowedPicture(Picture):
    """A picture of what a screen shows.

    Attributes
    ----------
    window : Preset
        How its values were made from stored ones.
    """

    window: Preset


def provenance_path(picture: Path) -> Path:
    """Return the path of the JSON beside a picture."""
    return picture.with_name(f"{picture.name}.json")


def check_provenance_path(picture: Path) -> None:
    """Refuse a picture whose JSON would replace another file.

    Raises
    ------
    OutputError
        If there is a file that is not such a JSON; no option replaces it.
    """
    path = provenance_path(picture)
    if not (path.exists() or path.is_symlink()):
        return
    with suppress(OSError):
        if not path.is_symlink() and has_schema(path, SCHEMA):
            return
    raise OutputError("{path} exists and is not the provenance of a picture", path)


def output_picture(
    dataset: Dataset,
    source: NDArray[np.integer],
    output: NDArray[np.integer],
    *,
    scale: int,
    windowed: bool,
) -> Picture:
    """Make the picture of an upscaled image.

    Parameters
    ----------
    dataset : pydicom.Dataset
        The source.
    source, output : numpy.ndarray
        ``(H, W)`` and ``(scale * H, scale * W)`` stored values.
    scale : int
        Factor.
    windowed : bool
        Whether the picture has what a screen shows by the first window of the object, or without
        one by its central values, in 8 bits, instead of stored values.
    """
    spacing = pixel_spacing(dataset)
    size = (spacing.rows / scale, spacing.columns / scale) if spacing else None
    if not windowed:
        # Signed values of 8 bits: no format has them.
        values = output.astype(np.int16) if output.dtype == np.int8 else output
        return Picture(values, dataset.BitsStored, size)
    display = Display.from_dataset(dataset, source)
    window = display.presets[0]
    return WindowedPicture(display.grey(output, window), 8, size, window=window)


def stated_provenance(picture: Path) -> StatedProvenance | None:
    """Return what the JSON beside a picture states; None without a legal one.

    The picture need not exist. Whoever believes the JSON compares the SHA-256 first.
    """
    try:
        with open_regular(provenance_path(picture)) as file:
            text = file.read(_MAX_BYTES + 1)
        content = json.loads(text) if len(text) <= _MAX_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None
    match content:
        case {
            "schema": schema,
            "model": {"name": str(model)},
            "picture": {"values": str(values), "sha256": str(sha256)},
        } if schema == SCHEMA and model.isprintable() and values in list(PictureValues):
            return StatedProvenance(model, PictureValues(values), sha256)
    return None


def write_provenance(
    path: Path,
    picture: Picture,
    *,
    source: Path,
    source_sha256: str,
    picture_sha256: str,
    dataset: Dataset,
    parameters: DerivationParameters,
    time: datetime,
    agreement: str,
    warnings: Sequence[str],
) -> None:
    """Write the JSON beside a picture, atomically.

    Parameters
    ----------
    path : Path
        Of the picture.
    picture : Picture
        As it is written.
    source, source_sha256
        Path and hash of the input. Of the path, only the format is written.
    picture_sha256 : str
        Hash of the picture's file.
    dataset : pydicom.Dataset
        The source.
    parameters : DerivationParameters
        Everything that decided the output.
    time : datetime
        Of the derivation.
    agreement : str
        How close the output is to its source.
    warnings : sequence of str
        What the user was told.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    rows, columns = picture.values.shape
    spacing = None if is_picture(source) else pixel_spacing(dataset)
    window = picture.window if isinstance(picture, WindowedPicture) else None
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "notice": NOTICE,
        "software": parameters.software,
        "time": time.isoformat(),
        "model": {"name": parameters.options.model, "sha256": parameters.model_sha256},
        "options": parameters.options.as_dict(),
        "source": {
            "format": FORMATS.get(source.suffix.lower(), "DICOM"),
            "sha256": source_sha256,
            "rows": int(dataset.Rows),
            "columns": int(dataset.Columns),
        },
        "picture": {
            "format": FORMATS[path.suffix.lower()],
            "sha256": picture_sha256,
            "rows": rows,
            "columns": columns,
            "values": PictureValues.WINDOWED if window else PictureValues.STORED,
            "window": window and {"name": window.name, "low": window.low, "high": window.high},
            "bits": picture.bits,
            "minimum": picture.minimum,
            "maximum": picture.maximum,
            "larger_is_darker": dataset.PhotometricInterpretation == "MONOCHROME1" and not window,
            "spacing_mm": picture.spacing,
            "spacing_attribute": spacing.keyword if spacing else None,
        },
        "agreement": agreement,
        "warnings": list(warnings),
    }
    with atomic_write(provenance_path(path), permissions=permissions_of(source)) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
