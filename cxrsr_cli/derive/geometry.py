"""Rescale every attribute that is counted in pixels, by the table `PIXEL_GEOMETRY`.

An attribute that is not in the table is copied, so every attribute that counts pixels must
be in it. Only the bits of overlay planes are upscaled elsewhere (`overlays`).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import Enum, auto

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.valuerep import format_number_as_ds

from cxrsr_cli.derive.overlays import OVERLAY_GROUPS
from cxrsr_cli.errors import UnsupportedImageError

_MAX_EXPONENT = 99
"""Of a number, as a power of ten."""
_POSITION_TOLERANCE = 1e-9
"""Millimetres below which a coordinate is written as zero."""


class ScalingRule(Enum):
    """How a value changes when every pixel becomes ``scale * scale`` pixels."""

    MULTIPLY = auto()
    """A count, length or shift in pixels: ``n * scale``."""
    MULTIPLY_AREA = auto()
    """A number of pixels in an area: ``n * scale**2``."""
    DIVIDE = auto()
    """A distance between pixel centres: ``d / scale``."""
    FIRST_PIXEL = auto()
    """1-based row or column of the first pixel inside: ``(n - 1) * scale + 1``."""
    LAST_PIXEL = auto()
    """1-based row or column of the last pixel inside: ``n * scale``."""
    CENTRE = auto()
    """1-based row or column of a point: the middle of the pixels that replace its pixel."""
    FIRST_PIXEL_POSITION = auto()
    """Coordinates of the first pixel's centre, which is inside the old first pixel."""
    REFUSE = auto()
    """The object is refused, because only images other than radiographs have the attribute."""


@dataclass(frozen=True, slots=True)
class PixelGeometryAttribute:
    """One line of the table.

    Attributes
    ----------
    keyword : str
        DICOM keyword; a keyword of a repeating group (60xx) stands for all its groups.
    counts : str
        What the value counts, in the words of PS3.3.
    rule : ScalingRule
        How the value changes.
    within : tuple of str
        Keywords of the sequences that contain it, outermost first.
    """

    keyword: str
    counts: str
    rule: ScalingRule
    within: tuple[str, ...] = ()

    @property
    def element(self) -> str:
        """Keyword of the top-level element that contains the value."""
        return self.within[0] if self.within else self.keyword


_line = PixelGeometryAttribute
_Rule = ScalingRule


def _edges(aperture: str) -> tuple[PixelGeometryAttribute, ...]:
    """Return the lines of the Display Shutter (C.7.6.11) or X-Ray Collimator (C.8.7.3) Module."""
    column = "location with respect to pixels in the image given as column"
    row = "location with respect to pixels in the image given as row"
    radius = "pixels along the row direction"
    return (
        _line(f"{aperture}LeftVerticalEdge", column, _Rule.FIRST_PIXEL),
        _line(f"{aperture}RightVerticalEdge", column, _Rule.LAST_PIXEL),
        _line(f"{aperture}UpperHorizontalEdge", row, _Rule.FIRST_PIXEL),
        _line(f"{aperture}LowerHorizontalEdge", row, _Rule.LAST_PIXEL),
        _line(f"CenterOfCircular{aperture}", "row and column", _Rule.CENTRE),
        _line(f"RadiusOfCircular{aperture}", radius, _Rule.MULTIPLY),
        _line(f"VerticesOfThePolygonal{aperture}", "rows and columns", _Rule.CENTRE),
    )


_BETWEEN_CENTRES = "mm between the centers of pixels"
_FIRST_CENTRE = "mm to the center of the first voxel"
_CURSOR = "with respect to pixels in the image, a column row pair"
_ORIGIN = "first overlay point with respect to pixels, 1\\1"

# Source column c (1-based) becomes columns (c - 1) * s + 1 to c * s. The standard does not
# say on which side of its pixel an edge is; here the named row or column is still shown.
PIXEL_GEOMETRY = (
    _line("Rows", "rows in the image", _Rule.MULTIPLY),
    _line("Columns", "columns in the image", _Rule.MULTIPLY),
    _line("ImagerPixelSpacing", _BETWEEN_CENTRES, _Rule.DIVIDE),
    _line("NominalScannedPixelSpacing", _BETWEEN_CENTRES, _Rule.DIVIDE),
    _line("ObjectPixelSpacingInCenterOfBeam", _BETWEEN_CENTRES, _Rule.DIVIDE),
    _line("PixelSpacing", _BETWEEN_CENTRES, _Rule.DIVIDE),
    _line("ImagePlanePixelSpacing", _BETWEEN_CENTRES, _Rule.DIVIDE),
    # So that it stays the ratio of pixel spacing to Detector Element Spacing.
    _line("DetectorBinning", "detector elements for each pixel", _Rule.DIVIDE),
    _line("ImagePositionPatient", _FIRST_CENTRE, _Rule.FIRST_PIXEL_POSITION),
    *_edges("Shutter"),
    *_edges("Collimator"),
    _line("OverlayRows", "rows in the overlay", _Rule.MULTIPLY),
    _line("OverlayColumns", "columns in the overlay", _Rule.MULTIPLY),
    _line("OverlayOrigin", _ORIGIN, _Rule.FIRST_PIXEL),
    _line("ROIArea", "number of pixels in the ROI area", _Rule.MULTIPLY_AREA),
    _line("MaskSubPixelShift", "fractional pixels", _Rule.MULTIPLY, ("MaskSubtractionSequence",)),
    # C.8.21.5.2: from 0\0 at the top left corner to Columns\Rows at the bottom right one.
    _line("LocalizingCursorPosition", _CURSOR, _Rule.MULTIPLY, ("BiopsyTargetSequence",)),
    _line("SequenceOfUltrasoundRegions", "bounds and scales in pixels", _Rule.REFUSE),
    _line("RTImagePosition", "mm to the center of the first pixel", _Rule.REFUSE),
    _line("ImagePositionPatient", _FIRST_CENTRE, _Rule.REFUSE, ("DetectorInformationSequence",)),
)


def rescale_geometry(derived: Dataset, source: Dataset, scale: int) -> list[str]:
    """Write the geometry of the upscaled image.

    Parameters
    ----------
    derived : pydicom.Dataset
        A copy of the original, changed in place.
    source : pydicom.Dataset
        The original.
    scale : int
        Scale factor.

    Returns
    -------
    list of str
        Warnings about values that were dropped, or that are no distance, by keyword.

    Raises
    ------
    UnsupportedImageError
        If a rescaled value does not fit its value representation, or its rule is to refuse
        the object.
    """
    warnings = []
    for line in PIXEL_GEOMETRY:
        for new, old in _items(derived, source, line.within):
            for tag in _tags(old, line.keyword):
                if old[tag].value in (None, "", []):
                    continue
                try:
                    if line.rule is ScalingRule.DIVIDE:
                        distances, kept = _divided(line.keyword, old[tag].value, scale)
                        vr = dictionary_VR(tag)
                        new.add_new(
                            tag, vr, distances if vr == "DS" else list(map(float, distances))
                        )
                        warnings += kept
                    else:
                        new.add_new(tag, *_rescaled(line, old, tag, scale))
                except UnsupportedImageError as error:
                    is_of_overlay = tag.group in OVERLAY_GROUPS
                    if not (is_of_overlay or isinstance(error, _NotNumericError)):
                        raise
                    new.pop(tag, None)
                    warnings.append(f"{error} and was dropped")
    return warnings


def _items(
    derived: Dataset, source: Dataset, within: tuple[str, ...]
) -> Iterator[tuple[Dataset, Dataset]]:
    """Yield pairs of corresponding items at the end of a path of sequences."""
    if not within:
        yield derived, source
        return
    copies, originals = derived.get(within[0]), source.get(within[0])
    if isinstance(copies, Sequence) and isinstance(originals, Sequence):
        for copied, original in zip(copies, originals, strict=True):
            yield from _items(copied, original, within[1:])


def _tags(dataset: Dataset, keyword: str) -> list[BaseTag]:
    """Return the tags with a keyword in a data set; a repeating group can have several."""
    return [tag for tag in dataset.keys() if keyword_for_tag(tag) == keyword]


def _rescaled(
    line: PixelGeometryAttribute, source: Dataset, tag: BaseTag, scale: int
) -> tuple[str, object]:
    """Return the VR that the standard defines, and the rescaled value."""
    if line.rule is ScalingRule.REFUSE:
        raise UnsupportedImageError(
            f"{line.keyword} is counted in pixels and belongs to an image that is not a radiograph"
        )
    vr = dictionary_VR(tag)
    if line.rule is ScalingRule.FIRST_PIXEL_POSITION:
        return vr, _first_pixel_position(source, scale)
    numbers = [
        _RULES[line.rule](number, scale) for number in _numbers(line.keyword, source[tag].value)
    ]
    values = [_encodable(line.keyword, vr, number) for number in numbers]
    return vr, values if len(values) > 1 else values[0]


_RULES: dict[ScalingRule, Callable[[Decimal, int], Decimal]] = {
    ScalingRule.MULTIPLY: lambda number, scale: number * scale,
    ScalingRule.MULTIPLY_AREA: lambda number, scale: number * scale**2,
    ScalingRule.FIRST_PIXEL: lambda number, scale: (number - 1) * scale + 1,
    ScalingRule.LAST_PIXEL: lambda number, scale: number * scale,
    # The middle of an even number of pixels is between two pixels; the first is taken.
    ScalingRule.CENTRE: lambda number, scale: (number - 1) * scale + (scale + 1) // 2,
}

_INTEGERS = {"US": (0, 2**16 - 1), "SS": (-(2**15), 2**15 - 1), "IS": (-(2**31), 2**31 - 1)}
"""Smallest and largest value, by VR (PS3.5 6.2)."""


class _NotNumericError(UnsupportedImageError):
    """A value that is counted in pixels is no number."""


def _numbers(keyword: str, value: object) -> list[Decimal]:
    """Read numbers, also from one text of several values, and with a decimal comma."""
    if isinstance(value, str):
        value = value.split("\\")
    values = value if isinstance(value, Iterable) and not isinstance(value, bytes) else [value]
    try:
        numbers = [Decimal(_as_number(str(number))) for number in values]
    except (TypeError, InvalidOperation):
        numbers = []
    if not numbers or not all(map(_is_writable, numbers)):
        raise _NotNumericError(f"{keyword} is not numeric")
    return numbers


def _is_writable(number: Decimal) -> bool:
    """Return whether a number can be written; one of many digits could fill the memory."""
    return number.is_finite() and (not number or abs(number.adjusted()) <= _MAX_EXPONENT)


def _as_number(text: str) -> str:
    """Return a number as PS3.5 6.2 writes it: a decimal comma is a point."""
    return text.strip().replace(",", ".")


def _divided(keyword: str, value: object, scale: int) -> tuple[list[str], list[str]]:
    """Return distances divided by the scale, and a warning if there is none to divide.

    A value that is zero or empty is kept.

    Raises
    ------
    _NotNumericError
        If a distance is below zero or not a number.
    """
    texts = value.split("\\") if isinstance(value, str) else value
    if isinstance(texts, bytes) or not isinstance(texts, Iterable):
        texts = [texts]
    distances, kept = list[str](), 0
    for text in (str(text).strip() for text in texts):
        number = _numbers(keyword, text)[0] if text else Decimal(0)
        if number < 0:
            raise _NotNumericError(f"{keyword} is below zero")
        kept += not number
        distances.append(_decimal_string(number / scale) if number else text)
    part = "is" if kept == len(distances) else "has a value that is"
    warnings = [f"{keyword} {part} not above zero and was kept unchanged"] if kept else []
    return distances, warnings


def _encodable(keyword: str, vr: str, number: Decimal) -> str | int | float:
    if vr == "DS":
        return _decimal_string(number)
    if vr not in _INTEGERS:
        return float(number)
    smallest, largest = _INTEGERS[vr]
    if not smallest <= number <= largest:
        raise UnsupportedImageError(f"{keyword} is too large to be rescaled")
    return int(number)


def _decimal_string(number: Decimal) -> str:
    """Write a number exactly if 16 characters are enough (PS3.5 6.2), else rounded."""
    exact = format(number.normalize(), "f")
    return exact if len(exact) <= 16 else format_number_as_ds(float(number))


def _first_pixel_position(source: Dataset, scale: int) -> list[str]:
    """Return the centre of the new first pixel (C.7.6.2.1.1).

    It is inside the old first pixel, shifted by (1 / scale - 1) / 2 old pixels along each
    direction.
    """
    try:
        position = [float(number) for number in source.ImagePositionPatient]
        row, column = source.ImageOrientationPatient[:3], source.ImageOrientationPatient[3:]
        between_rows, between_columns = (float(number) for number in source.PixelSpacing)
        shift = (1 / scale - 1) / 2
        moved = [
            p + shift * (float(x) * between_columns + float(y) * between_rows)
            for p, x, y in zip(position, row, column, strict=True)
        ]
        written = [
            format_number_as_ds(0.0 if abs(number) < _POSITION_TOLERANCE else number)
            for number in moved
        ]
    except (AttributeError, TypeError, ValueError):
        raise UnsupportedImageError(
            "Image Position (Patient) cannot be rescaled without valid orientation and spacing"
        ) from None
    return written
