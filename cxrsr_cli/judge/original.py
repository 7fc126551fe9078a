"""The images that methods are judged on, at their full depth."""

from pathlib import Path

from cxrsr_cli.errors import InputError
from cxrsr_cli.learn.images import GrayscaleImage
from cxrsr_cli.learn.sources import is_picture, read_images


def read_ground_truth(path: Path, multiple: int) -> GrayscaleImage:
    """Read one image, cut to a multiple of the scale.

    Parameters
    ----------
    path : Path
        A grey picture of 8 or 16 bits, or a DICOM radiograph of 8 to 16 bits
        with one frame.
    multiple : int
        Height and width are cut at the bottom and right to a multiple of it.

    Returns
    -------
    GreyImage
        Its stored values, without their padding (`read_images`). That it
        is MONOCHROME1 the network is told, the metrics are not.

    Raises
    ------
    InputError
        If it cannot be read or is not one that `upscale` would take.
    """
    try:
        images = read_images(path, multiple)
    except InputError as error:
        if is_picture(path):  # named already
            raise
        raise type(error)(f"{path.name}: {error}") from error
    if len(images) != 1:
        raise InputError(f"{path.name}: {len(images)} frames; originals have one")
    return images[0]
