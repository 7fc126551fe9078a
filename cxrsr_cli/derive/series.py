"""The series that outputs form: its number and what a reading list shows of it."""

from pydicom.dataset import Dataset

from cxrsr_cli.errors import UsageError

NOT_FOR_DIAGNOSIS = "not for diagnosis"

_MAX_DESCRIPTION_LENGTH = 64
"""Value length of LO (PS3.5 6.2)."""
_LARGEST_INTEGER_STRING = 2**31 - 1


def validate_series_description(text: str) -> None:
    """Refuse a Series Description that cannot be written as it is.

    Parameters
    ----------
    text : str
        What the user wants to stand before "not for diagnosis".

    Raises
    ------
    UsageError
        If it is empty, too long, or not plain ASCII: the object's character
        set is its source's, and a backslash separates values.
    """
    room = _MAX_DESCRIPTION_LENGTH - len(_with_warning(""))
    plain = text.isascii() and text.isprintable() and "\\" not in text
    if not (plain and text.strip() == text and 0 < len(text) <= room):
        raise UsageError(
            f"a series description has 1 to {room} ASCII characters, no backslash, and no "
            f"space at its ends; ', {NOT_FOR_DIAGNOSIS}' is added"
        )


def series_description(source: Dataset, scale: int, wanted: str | None) -> str:
    """Return the derived series' description.

    Parameters
    ----------
    source : pydicom.Dataset
        The original.
    scale : int
        Factor.
    wanted : str or None
        The user's text; else the source's, where its characters need no
        encoding, and what was done.
    """
    if wanted is not None:
        return _with_warning(wanted)
    ours = _with_warning(f"AI super-resolution x{scale}")
    room = _MAX_DESCRIPTION_LENGTH - len(ours) - 2
    theirs = str(source.get("SeriesDescription") or "").strip()[:room].strip()
    return f"{theirs}: {ours}" if theirs and theirs.isascii() else ours


def series_number(source: Dataset, scale: int) -> int:
    """Make series 3 at scale 4 number 304: beside its source in a sorted list."""
    try:
        number = int(source.get("SeriesNumber") or 0) * 100 + scale
    except (TypeError, ValueError):
        number = scale
    return number if number <= _LARGEST_INTEGER_STRING else scale


def _with_warning(text: str) -> str:
    return f"{text}, {NOT_FOR_DIAGNOSIS}"
