"""Numbers of bytes as people write them."""

import re

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_byte_size(text: str) -> int:
    """Read a number of bytes, with K, M, G or T for powers of 1024.

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
        If it is none.
    """
    form = r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([KMGT]?)(?:i?B)?"
    read = re.fullmatch(form, text.strip(), re.IGNORECASE)
    count = int(float(read[1]) * _UNITS[read[2].upper()]) if read else 0
    if not count:
        raise ValueError(f"'{text}' is no size; write one such as 1500MiB or 4GiB")
    return count
