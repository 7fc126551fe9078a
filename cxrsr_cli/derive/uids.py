"""UIDs of outputs: the same input, model and options give the same UIDs again."""

import json
import uuid
from dataclasses import dataclass, fields, replace
from typing import Self

from pydantic import TypeAdapter
from pydicom.uid import UID

from cxrsr_cli.options import UpscaleOptions

_NAMESPACE = uuid.UUID("b86450af-878d-51ca-8aa2-a5cc46e05975")


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

    def instance_uid(self, source_instance_uid: str, source_pixels_sha256: str) -> UID:
        """Return the SOP Instance UID of the output.

        The pixels count because sources with the same UID and other pixels exist.
        Their outputs must not hide each other in an archive.
        """
        return _uid("instance", source_instance_uid, source_pixels_sha256, self.fingerprint())

    def series_uid(self, source_series_uid: str) -> UID:
        """Return the Series Instance UID shared by all outputs of a series."""
        return _uid("series", source_series_uid, self.fingerprint())

    def device_uid(self) -> UID:
        """Return the Device UID: another model or version is another device."""
        return _uid("device", self.software, self.model_sha256)


def _uid(*parts: str) -> UID:
    """Return ``2.25.`` and the integer of a UUID version 5 (PS3.5 B.2)."""
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, '|'.join(parts)).int}")
