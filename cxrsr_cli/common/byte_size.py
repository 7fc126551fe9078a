"""Parse sizes in bytes as people write them."""

import re

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_PATTERN = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


def parse_byte_size(text: str) -> int:
    """Return a number of bytes; K, M, G and T are powers of 1024.

    Parameters
    ----------
    text : str
        Such as ``1500MiB``, ``4G`` or ``1.5 GB``.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    ValueError
        If the text is not a size.
    """
    match = _PATTERN.fullmatch(text.strip())
    count = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if not count:
        raise ValueError(f"'{text}' is not a size; write for example 1500MiB or 4GiB")
    return count
