"""Derive the header again, by what the object states of its making, and compare every element."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cxrsr_cli import __version__
from cxrsr_cli.derive.derive import derive
from cxrsr_cli.derive.equipment import read_parameters
from cxrsr_cli.derive.uids import DerivationParameters
from cxrsr_cli.dicom.codecs import decodes_to_raw_cells
from cxrsr_cli.dicom.source import DicomSource
from cxrsr_cli.dicom.write import encode_header
from cxrsr_cli.errors import CxrsrError
from cxrsr_cli.verify.findings import Aspect, Finding

_UIDS = frozenset((Tag("SOPInstanceUID"), Tag("SeriesInstanceUID")))
_UIDS_CLAIM = "SOP Instance UID and Series Instance UID are those of this source and these choices"
_CLAIMS = (
    _UIDS_CLAIM,
    "every other element has the value that its derivation gives it",
    "no element that the derivation writes or copies is missing",
    "there is no element that the derivation neither writes nor copies",
)
_PIXEL_DATA = Tag("PixelData")


@dataclass(frozen=True, slots=True)
class StatedDerivation:
    """How a derived object says that it was made.

    Attributes
    ----------
    parameters : DerivationParameters
        Everything that decides an output besides its source.
    time : datetime
        Of the derivation.
    """

    parameters: DerivationParameters
    time: datetime

    @classmethod
    def read(cls, derived: DicomSource) -> "StatedDerivation | None":
        """Read it from the object; None if it does not state it, or states something illegal."""
        try:
            return cls(*read_parameters(derived.dataset))
        except (ValueError, TypeError, AttributeError):
            return None


def check_header(
    source: DicomSource,
    derived: DicomSource,
    source_pixels: NDArray[np.int32],
    derived_pixels: NDArray[np.integer],
    stated: StatedDerivation | None,
    agreement: str,
) -> Iterator[Finding]:
    """Compare the header, element by element, with one that is derived here.

    Parameters
    ----------
    source, derived : DicomSource
        The original, and the object derived from it.
    source_pixels, derived_pixels : numpy.ndarray
        ``(F, H, W)`` and ``(F, scale * H, scale * W)``, their stored values.
    stated : StatedDerivation or None
        What the object says of its making; the time of the derivation is taken from it.
    agreement : str
        What the Derivation Description should say of the pixels.
    """
    scale = derived_pixels.shape[-1] // source_pixels.shape[-1]
    if stated is None:
        yield from _not_checked("the object does not state how and when it was made")
    elif stated.parameters.software != __version__:
        yield from _not_checked(
            f"made by cxrsr {stated.parameters.software}; this is {__version__}"
        )
    elif stated.parameters.options.scale != scale:
        yield from _not_checked("the scale that the object states is not that of its size")
    else:
        try:
            expected = _derive(source, derived, source_pixels, derived_pixels, stated, agreement)
        except CxrsrError as error:
            yield from _not_checked(f"the source cannot be derived from: {error}")
        # A forged object may state anything.
        except (ValueError, TypeError, AttributeError) as error:
            yield from _not_checked(f"cannot derive as stated ({type(error).__name__})")
        else:
            yield from _compare(expected, derived)


def _not_checked(reason: str) -> Iterator[Finding]:
    return (Finding.not_checked(Aspect.HEADER, claim, reason) for claim in _CLAIMS)


def _derive(
    source: DicomSource,
    derived: DicomSource,
    source_pixels: NDArray[np.int32],
    derived_pixels: NDArray[np.integer],
    stated: StatedDerivation,
    agreement: str,
) -> DicomSource:
    expected, _ = derive(
        source, source_pixels, derived_pixels, stated.parameters, stated.time, agreement=agreement
    )
    is_implicit = derived.transfer_syntax == ImplicitVRLittleEndian
    return encode_header(
        expected, ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
    )


def _compare(expected: DicomSource, found: DicomSource) -> Iterator[Finding]:
    wanted, present = (_tags(each) for each in (expected, found))
    different = {tag for tag in wanted & present if not is_same(expected, found, tag)}
    if not decodes_to_raw_cells(found.transfer_syntax):
        # Codecs that know only values do not keep High Bit; `check_photometry` looks at it.
        different.discard(Tag("HighBit"))
    groups = (
        _UIDS & (different | (wanted ^ present)),
        different - _UIDS,
        wanted - present - _UIDS,
        present - wanted - _UIDS,
    )
    for claim, tags in zip(_CLAIMS, groups, strict=True):
        yield Finding.of_differences(Aspect.HEADER, claim, tags)


def _tags(source: DicomSource) -> set[BaseTag]:
    # Group lengths are retired, and are not written (PS3.5 7.2).
    return {tag for tag in source.raw_dataset.keys() if tag.element and tag != _PIXEL_DATA}


def is_same(first: DicomSource, second: DicomSource, tag: BaseTag) -> bool:
    """Return whether two objects that both have an element have the same in it."""
    elements = first.raw_dataset.get_item(tag), second.raw_dataset.get_item(tag)
    if all(isinstance(each, RawDataElement) for each in elements) and (
        elements[0].value == elements[1].value
    ):
        return True
    # Bytes can differ: sequences have several encodings, and texts several paddings.
    return bool(first.dataset[tag].value == second.dataset[tag].value)
