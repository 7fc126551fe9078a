"""Draw where an output leaves its source."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxrsr_cli.common.files import atomic_write
from cxrsr_cli.dicom.write import check_writable, os_errors_as_output_error
from cxrsr_cli.errors import OutputError

_RED = (255, 0, 0)
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def check_map_path(path: Path) -> None:
    """Refuse the path of a map before any work is done.

    Raises
    ------
    OutputError
        If the path holds something other than a PNG file, or cannot be written.
    """
    check_writable(path)
    if path.exists() and not (path.is_file() and _is_png(path)):
        raise OutputError("{path} exists and is not a PNG file; it is not replaced", path)


def _is_png(path: Path) -> bool:
    with os_errors_as_output_error(path), path.open("rb") as file:
        return file.read(len(_PNG_SIGNATURE)) == _PNG_SIGNATURE


def draw_map(
    path: Path, source: NDArray[np.int32], ratio: NDArray[np.float64], *, inverted: bool
) -> None:
    """Write the source as a picture, red where deviations come near to their bound or exceed it.

    Parameters
    ----------
    path : Path
        A PNG file; an earlier one is replaced.
    source : numpy.ndarray
        ``(H, W)`` stored values.
    ratio : numpy.ndarray
        ``(H, W)``, as `cxrsr_cli.verify.pixels.PixelAudit.maps`.
    inverted : bool
        Whether large values are dark.

    Raises
    ------
    OutputError
        As `check_map_path`.
    """
    low, high = np.percentile(source, (0.5, 99.5))
    grey = np.clip((source - low) / max(high - low, 1), 0, 1)[..., None] * 255
    share = np.clip(2 * ratio - 1, 0, 1)[..., None]
    picture = (255 - grey if inverted else grey) * (1 - share) + np.array(_RED) * share
    check_map_path(path)
    with os_errors_as_output_error(path), atomic_write(path) as temporary:
        Image.fromarray(picture.astype(np.uint8), "RGB").save(temporary, "PNG")
