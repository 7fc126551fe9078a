"""Command sets of DIMSE (PS3.7 6.3, 9.3 and annex E), as far as a Storage SCP meets them."""

import re
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from cxrsr_cli.serve.refusal import BrokenOffError, Reason
from cxrsr_cli.serve.status import Status

_RESPONSE = 0x8000
_NO_DATA_SET = 0x0101
_LONGEST_COMMENT = 64
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_LONGEST_UID = 64


class Field(IntEnum):
    """Command Field (0000,0100) of requests."""

    C_STORE = 0x0001
    C_ECHO = 0x0030
    C_CANCEL = 0x0FFF


class _Element(IntEnum):
    """Element numbers of group 0000."""

    GROUP_LENGTH = 0x0000
    AFFECTED_SOP_CLASS_UID = 0x0002
    COMMAND_FIELD = 0x0100
    MESSAGE_ID = 0x0110
    MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
    COMMAND_DATA_SET_TYPE = 0x0800
    STATUS = 0x0900
    ERROR_COMMENT = 0x0902
    AFFECTED_SOP_INSTANCE_UID = 0x1000


def is_uid(text: str) -> bool:
    """Tell whether a text is a UID (PS3.5 9.1): no path, no letters, 64 characters at most."""
    return len(text) <= _LONGEST_UID and _UID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Command:
    """A request.

    Attributes
    ----------
    field : int
        Command Field; `Field` or any other.
    message_id : int
        For the response.
    sop_class, sop_instance : str
        As the peer wrote them, so perhaps no UIDs.
    has_data_set : bool
        Whether a data set follows.
    """

    field: int
    message_id: int
    sop_class: str
    sop_instance: str
    has_data_set: bool

    @classmethod
    def decode(cls, encoded: bytes) -> Self:
        """Read a command set.

        Raises
        ------
        BrokenOffError
            If it cannot be read, or is no request: only a request can be answered.
        """
        elements = _elements(encoded)
        field = _number(elements, _Element.COMMAND_FIELD)
        if field & _RESPONSE:
            raise BrokenOffError(Reason.UNEXPECTED)
        # C-CANCEL has none.
        message_id = 0 if field == Field.C_CANCEL else _number(elements, _Element.MESSAGE_ID)
        return cls(
            field,
            message_id,
            _text(elements, _Element.AFFECTED_SOP_CLASS_UID),
            _text(elements, _Element.AFFECTED_SOP_INSTANCE_UID),
            _number(elements, _Element.COMMAND_DATA_SET_TYPE) != _NO_DATA_SET,
        )

    def response(self, status: Status, comment: str = "") -> bytes:
        """Encode the response; UIDs that are none are not repeated.

        Parameters
        ----------
        status : Status
            What became of the request.
        comment : str
            Error Comment (0000,0902), of our own words.
        """
        elements: dict[_Element, bytes] = {}
        if is_uid(self.sop_class):
            elements[_Element.AFFECTED_SOP_CLASS_UID] = _even(self.sop_class, "\0")
        elements[_Element.COMMAND_FIELD] = _short(self.field | _RESPONSE)
        elements[_Element.MESSAGE_ID_BEING_RESPONDED_TO] = _short(self.message_id)
        elements[_Element.COMMAND_DATA_SET_TYPE] = _short(_NO_DATA_SET)
        elements[_Element.STATUS] = _short(status)
        if comment:
            elements[_Element.ERROR_COMMENT] = _even(comment[:_LONGEST_COMMENT], " ")
        if is_uid(self.sop_instance):
            elements[_Element.AFFECTED_SOP_INSTANCE_UID] = _even(self.sop_instance, "\0")
        rest = b"".join(_encode(number, value) for number, value in elements.items())
        return _encode(_Element.GROUP_LENGTH, struct.pack("<I", len(rest))) + rest


def _elements(encoded: bytes) -> dict[int, bytes]:
    """Split a command set: group 0000 only, implicit VR little endian (PS3.7 6.3.1)."""
    elements = {}
    at = 0
    while at < len(encoded):
        if len(encoded) - at < 8:
            raise BrokenOffError(Reason.MALFORMED)
        group, number, length = struct.unpack_from("<HHI", encoded, at)
        at += 8
        if group != 0 or length > len(encoded) - at:
            raise BrokenOffError(Reason.MALFORMED)
        elements[number] = encoded[at : at + length]
        at += length
    return elements


def _number(elements: dict[int, bytes], number: _Element) -> int:
    value = elements.get(number, b"")
    if len(value) != 2:
        raise BrokenOffError(Reason.MALFORMED)
    return int.from_bytes(value, "little")


def _text(elements: dict[int, bytes], number: _Element) -> str:
    # Padded with a zero byte, and by some with a space.
    return elements.get(number, b"").decode("latin-1").rstrip("\0 ")


def _encode(number: _Element, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, number, len(value)) + value


def _even(text: str, padding: str) -> bytes:
    return (text + padding * (len(text) % 2)).encode("ascii")


def _short(value: int) -> bytes:
    return struct.pack("<H", value)
