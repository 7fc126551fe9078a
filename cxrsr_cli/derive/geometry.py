"""Every attribute that is counted in pixels, and what magnification does to it.

One table. An attribute that is not in it is copied, so whatever counts pixels
must be in it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import Enum, auto

from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from cxrsr_cli.errors import UnsupportedImageError

_POSITION_TOLERANCE = 1e-9


class Rule(Enum):
    """How a value changes when every pixel becomes ``scale * scale`` pixels."""

    MULTIPLY = auto()
    """A count or length in pixels: ``n * scale``."""
    DIVIDE = auto()
    """A distance between pixel centres: ``d / scale``, unless zero."""
    FIRST_PIXEL = auto()
    """1-based row or column that is the first inside: ``(n - 1) * scale + 1``."""
    LAST_PIXEL = auto()
    """1-based row or column that is the last inside: ``n * scale``."""
    CENTRE = auto()
    """1-based row or column of a point: the middle of the pixels it became."""


@dataclass(frozen=True, slots=True)
class CountedInPixels:
    """One line of the table.

    Attributes
    ----------
    keyword : str
        DICOM keyword.
    rule : Rule
        What magnification does.
    """

    keyword: str
    rule: Rule


# 1-based input column c becomes output columns (c - 1) * s + 1 .. c * s. The
# standard does not say on which side of its pixel an edge lies; the project's
# reading is that the named row or column is the last one that is shown.
TABLE = (
    CountedInPixels("Rows", Rule.MULTIPLY),
    CountedInPixels("Columns", Rule.MULTIPLY),
    CountedInPixels("ImagerPixelSpacing", Rule.DIVIDE),
    CountedInPixels("NominalScannedPixelSpacing", Rule.DIVIDE),
    CountedInPixels("ObjectPixelSpacingInCenterOfBeam", Rule.DIVIDE),
    CountedInPixels("PixelSpacing", Rule.DIVIDE),
    CountedInPixels("ShutterLeftVerticalEdge", Rule.FIRST_PIXEL),
    CountedInPixels("ShutterRightVerticalEdge", Rule.LAST_PIXEL),
    CountedInPixels("ShutterUpperHorizontalEdge", Rule.FIRST_PIXEL),
    CountedInPixels("ShutterLowerHorizontalEdge", Rule.LAST_PIXEL),
    CountedInPixels("CenterOfCircularShutter", Rule.CENTRE),
    CountedInPixels("RadiusOfCircularShutter", Rule.MULTIPLY),
    CountedInPixels("VerticesOfThePolygonalShutter", Rule.CENTRE),
    CountedInPixels("CollimatorLeftVerticalEdge", Rule.FIRST_PIXEL),
    CountedInPixels("CollimatorRightVerticalEdge", Rule.LAST_PIXEL),
    CountedInPixels("CollimatorUpperHorizontalEdge", Rule.FIRST_PIXEL),
    CountedInPixels("CollimatorLowerHorizontalEdge", Rule.LAST_PIXEL),
    CountedInPixels("CenterOfCircularCollimator", Rule.CENTRE),
    CountedInPixels("RadiusOfCircularCollimator", Rule.MULTIPLY),
    CountedInPixels("VerticesOfThePolygonalCollimator", Rule.CENTRE),
)


def rescale_geometry(derived: Dataset, source: Dataset, scale: int) -> list[str]:
    """Write the geometry of the magnified image.

    Parameters
    ----------
    derived : pydicom.Dataset
        Changed in place.
    source : pydicom.Dataset
        The original's attributes.
    scale : int
        Factor of magnification.

    Returns
    -------
    list of str
        What could not be rescaled and was kept, by keyword.

    Raises
    ------
    UnsupportedImageError
        If a value that must be rescaled is not a number.
    """
    warnings = []
    for line in TABLE:
        value = source.get(line.keyword)
        if value in (None, ""):
            continue
        if line.rule is Rule.DIVIDE:
            if not _is_positive(value):
                warnings.append(f"{line.keyword} is not above zero and is kept: no true size")
                continue
            new: object = [_divided(number, scale) for number in _numbers(line.keyword, value)]
        else:
            counted = [
                _COUNTED[line.rule](int(number), scale) for number in _numbers(line.keyword, value)
            ]
            new = counted if len(counted) > 1 else counted[0]
        setattr(derived, line.keyword, new)
    if source.get("ImagePositionPatient"):
        derived.ImagePositionPatient = _moved_position(source, scale)
    return warnings


_COUNTED: dict[Rule, Callable[[int, int], int]] = {
    Rule.MULTIPLY: lambda number, scale: number * scale,
    Rule.FIRST_PIXEL: lambda number, scale: (number - 1) * scale + 1,
    Rule.LAST_PIXEL: lambda number, scale: number * scale,
    # The middle of an even number of pixels lies between two: the first of them.
    Rule.CENTRE: lambda number, scale: (number - 1) * scale + (scale + 1) // 2,
}


def _numbers(keyword: str, value: object) -> list[Decimal]:
    values = [value] if isinstance(value, (str, int, float)) else value
    try:
        return [Decimal(str(number)) for number in values]  # type: ignore[attr-defined]
    except (TypeError, InvalidOperation):
        raise UnsupportedImageError(f"{keyword} is not numeric") from None


def _is_positive(value: object) -> bool:
    try:
        return all(number.is_finite() and number > 0 for number in _numbers("spacing", value))
    except UnsupportedImageError:
        return False


def _divided(number: Decimal, scale: int) -> str:
    """Divide exactly; the result as a decimal string of at most 16 characters."""
    exact = format((number / scale).normalize(), "f")
    return exact if len(exact) <= 16 else format_number_as_ds(float(number / scale))


def _moved_position(source: Dataset, scale: int) -> list[str]:
    """Return the centre of the new first pixel (C.7.6.2.1.1).

    It lies inside the old first pixel, (1 / scale - 1) / 2 pixels along each
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
    except (AttributeError, TypeError, ValueError):
        raise UnsupportedImageError(
            "Image Position (Patient) without legal orientation and spacing cannot be corrected"
        ) from None
    return [
        format_number_as_ds(0.0 if abs(number) < _POSITION_TOLERANCE else number)
        for number in moved
    ]
