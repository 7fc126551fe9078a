"""UIDs of outputs: the same input, model and options give the same UIDs again."""

import hashlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from pydantic import TypeAdapter
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID
from pydicom.valuerep import STR_VR

from cxrsr_cli.dicom.raw_elements import NUMBER_TYPES, sequence_items
from cxrsr_cli.options import UpscaleOptions

_NAMESPACE = uuid.UUID("b86450af-878d-51ca-8aa2-a5cc46e05975")

NOT_IN_UIDS = {
    "InstanceCreationDate": "of the output",
    "InstanceCreationTime": "of the output",
    "InstanceCreatorUID": "of the output",
    "ContentDate": "of the output",
    "ContentTime": "of the output",
    "OriginalAttributesSequence": "a router adds what it changed",
}
"""Keywords of the attributes that do not decide the UID of an output, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivationParameters:
    """Everything that decides an output besides its input and the time.

    Attributes
    ----------
    software : str
        Version of this package.
    model_sha256 : str
        SHA-256 of the weights file.
    options : UpscaleOptions
        The user's options, with scale, device, precision, agreement and noise reduction as used;
        `UpscaleOptions.model` is the model's name with its scale.
    impulse_filter : bool
        Whether the model removes impulse noise first; the weights decide it.
    noise_level_sha256 : str
        SHA-256 of the weights that estimate the noise; empty if it is not estimated.
    """

    software: str
    model_sha256: str
    options: UpscaleOptions
    impulse_filter: bool = False
    noise_level_sha256: str = ""

    def to_json(self) -> str:
        """Return all of it as one line of JSON, for the derived object."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        plain["options"] = self._options_by_kind_of_device().recipe()
        return json.dumps(plain, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises
        ------
        ValueError
            If it is not that.
        """
        return TypeAdapter(cls).validate_json(text)

    def fingerprint(self) -> str:
        """Return as text all of it that the weights do not decide."""
        weights = f"{self.model_sha256}|{self.noise_level_sha256}"
        options = self._options_by_kind_of_device()
        return f"{self.software}|{weights}|{options.fingerprint()}"

    def _options_by_kind_of_device(self) -> UpscaleOptions:
        # All GPUs of a machine give the same results.
        return replace(self.options, device=self.options.device.partition(":")[0])

    def instance_uid(self, source_instance_uid: str, pixels_sha256: str, header_sha256: str) -> UID:
        """Return the SOP Instance UID of the output.

        The source's pixels and header count, because sources with the same UID and other
        pixels exist, and a header is corrected under the UID that it has. Their outputs must
        not hide each other in an archive.
        """
        return _uid(
            "instance", source_instance_uid, pixels_sha256, header_sha256, self.fingerprint()
        )

    def series_uid(self, study_instance_uid: str, source_series_uid: str) -> UID:
        """Return the Series Instance UID shared by all outputs of a series."""
        return _uid("series", study_instance_uid, source_series_uid, self.fingerprint())

    def device_uid(self) -> UID:
        """Return the Device UID: another model or version is another device."""
        return _uid("device", self.software, self.model_sha256)


def hash_header(dataset: Dataset) -> str:
    """Return the SHA-256 of what an output copies from its source's header.

    Takes the elements that stay, before any is written. The result does not depend on how
    they are encoded, nor on what `NOT_IN_UIDS` names, so that an image that arrives by
    another route gives the same output.
    """
    digest = hashlib.sha256()
    for part in _canonical(dataset, frozenset({"PixelData", *NOT_IN_UIDS})):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _canonical(dataset: Dataset, left_out: frozenset[str] = frozenset()) -> Iterator[bytes]:
    for tag in sorted(dataset.keys()):
        # Group lengths are retired, and are not written (PS3.5 7.2).
        if not tag.element or keyword_for_tag(tag) in left_out:
            continue
        yield tag.to_bytes(4, "little")
        items = sequence_items(dataset, tag)
        for item in items or ():
            yield b"item"
            yield from _canonical(item)
        yield b"end" if items is not None else _canonical_value(dataset, tag)


def _canonical_value(dataset: Dataset, tag: BaseTag) -> bytes:
    element = dataset.get_item(tag)
    value = element.value
    # pydicom parses an element that it needs in order to read others.
    if not isinstance(element, RawDataElement):
        value = _encode(value, NUMBER_TYPES.get(element.VR))
    is_text = dictionary_has_tag(tag) and dictionary_VR(tag) in STR_VR
    return (value or b"").rstrip(b" \0") if is_text else value or b""


def _encode(value: object, kind: str | None) -> bytes:
    if value is None:
        return b""
    try:
        if kind:
            return np.array(value, kind).tobytes()
    # A damaged element may hold something other than numbers.
    except (TypeError, ValueError, OverflowError):
        pass
    return str(value).encode(errors="backslashreplace")


def _uid(*parts: str) -> UID:
    """Return ``2.25.`` and the integer of a UUID version 5 (PS3.5 B.2)."""
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, '|'.join(parts)).int}")
