"""Mutations that keep a file's framing, so that cases get past the parser.

Each changes one element of an encoded data set: its VR, its length, its value, its place.
"""

import random
import struct
from collections.abc import Iterator

from cxrsr_cli.dicom.dataset_walker import LONG_LENGTH_VRS

_VRS = (
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"FD", b"FL", b"IS", b"LO", b"OB", b"OW", b"SH",
    b"SL", b"SQ", b"SS", b"UI", b"UL", b"UN", b"US", b"UT", b"??", b"\0\0",
)  # fmt: skip
_VALUES = (
    b"", b"\0", b"\x01\0\x02\0", b"1\\2\\3 ", b"N/A ", b"NaN\\NaN ", b"0,16\\0,16 ", b" CHEST",
    b"-1\\-1 ", b"\xff" * 8, b"9" * 20, b"1.2.3\\4.5 ", b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
)  # fmt: skip


def structural_mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield `count` copies of an explicit little endian file, each with one to three changes."""
    source = random.Random(seed)  # noqa: S311 - not for secrets
    start = 144 + int.from_bytes(data[140:144], "little")
    elements = list(_split(data[start:]))
    for _ in range(count):
        changed = list(elements)
        for _ in range(source.choice((1, 1, 2, 3))):
            _change(changed, source)
        tail = source.choice((b"",) * 6 + (bytes(10), bytes(512), source.randbytes(99)))
        yield data[:start] + b"".join(map(_join, changed)) + tail


Element = tuple[bytes, bytes, int | None, bytes]
"""Tag, VR, length to claim if it is not the value's, and value."""


def _split(dataset: bytes) -> Iterator[Element]:
    at = 0
    while at < len(dataset):
        tag, vr = dataset[at : at + 4], dataset[at + 4 : at + 6]
        is_long = vr in LONG_LENGTH_VRS
        length = struct.unpack_from("<L" if is_long else "<H", dataset, at + (8 if is_long else 6))[
            0
        ]
        at += 12 if is_long else 8
        # Undefined lengths go to the end: the rest is one value then.
        yield tag, vr, length if length == 0xFFFFFFFF else None, dataset[at : at + length]
        at += length


def _join(element: Element) -> bytes:
    tag, vr, claimed, value = element
    length = len(value) if claimed is None else claimed
    if vr in LONG_LENGTH_VRS:
        return tag + vr + b"\0\0" + struct.pack("<L", length) + value
    return tag + vr + struct.pack("<H", min(length, 0xFFFF)) + value


def _change(elements: list[Element], source: random.Random) -> None:
    at = source.randrange(len(elements))
    tag, vr, claimed, value = elements[at]
    match source.randrange(7):
        case 0:
            elements[at] = tag, source.choice(_VRS), claimed, value
        case 1:
            elements[at] = tag, vr, claimed, source.choice(_VALUES)
        case 2:
            elements[at] = tag, vr, len(value) + source.choice((-2, -1, 1, 2, 24)), value
            if len(value) < 2:
                elements[at] = tag, vr, 0xFFFF, value
        case 3:
            del elements[at]
        case 4:
            elements.insert(source.randrange(len(elements)), elements[at])
        case 5:
            group = struct.pack("<H", source.choice((0, 2, 0x0011, 0x6000, 0x5000, 0xFFFC)))
            elements[at] = group + tag[2:], vr, claimed, value
        case _:
            elements[at] = tag, vr, claimed, value[: len(value) // 2]
