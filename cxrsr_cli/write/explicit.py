"""Implicit VR objects turned to explicit VR without touching their text."""

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.valuerep import STR_VR


def to_explicit(dataset: Dataset) -> None:
    """Give every element of an implicit VR dataset its VR, in place.

    pydicom, left to itself, decodes all text and encodes it again, and so
    loses what is illegal in its character set.

    Parameters
    ----------
    dataset : pydicom.Dataset
        As read from a file, apart from what was set since.
    """
    _state(dataset)
    correct_ambiguous_vr(dataset, True)
    _declare(dataset)


def _state(dataset: Dataset) -> None:
    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag)
        element = dataset[tag]
        if element.VR == "SQ":
            for item in element.value:
                _state(item)
        elif isinstance(raw, RawDataElement) and element.VR in STR_VR:
            # Characters are the same bytes under any VR encoding.
            # Setting an item would parse it if it is private.
            dataset._dict[tag] = raw._replace(VR=element.VR, is_implicit_VR=False)  # noqa: SLF001


def _declare(dataset: Dataset) -> None:
    dataset.set_original_encoding(False, True, dataset.original_character_set)
    for element in dataset.elements():
        if element.VR == "SQ":
            for item in dataset[element.tag].value:
                _declare(item)
