"""Private elements: kept as they are, or dropped (PS3.5 7.8)."""

from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag


def drop_private(dataset: Dataset) -> None:
    """Remove every private element, in sequences too.

    Parameters
    ----------
    dataset : pydicom.Dataset
        Changed in place. Only its sequences are looked at, so that the other
        elements stay the file's bytes.
    """
    for tag in list(dataset.keys()):
        if tag.is_private:
            del dataset[tag]
        elif _is_sequence(dataset, tag):
            for item in dataset[tag].value or ():
                drop_private(item)


def drop_image_copies(dataset: Dataset, pixels: int) -> list[str]:
    """Remove private elements that must be copies of the image in its former size.

    No private dictionary tells them apart; the size does. Vendors keep the
    original or a reduced bit depth, so one byte a pixel is the limit.

    Parameters
    ----------
    dataset : pydicom.Dataset
        Changed in place.
    pixels : int
        How many the source has in a frame.

    Returns
    -------
    list of str
        What was dropped.
    """
    caches = [tag for tag in dataset.keys() if tag.is_private and _length(dataset, tag) >= pixels]
    for tag in caches:
        del dataset[tag]
    count = len(caches)
    return [f"{count} private elements as large as the image were dropped"] if count else []


def _is_sequence(dataset: Dataset, tag: BaseTag) -> bool:
    vr = dataset.get_item(tag).VR
    if vr is None:  # implicit VR, not yet looked at
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            return False
    return vr == "SQ"


def _length(dataset: Dataset, tag: BaseTag) -> int:
    value = dataset.get_item(tag).value
    return len(value) if isinstance(value, bytes) else 0
