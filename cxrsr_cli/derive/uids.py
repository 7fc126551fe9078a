"""UIDs that name what was made, and are the same when it is made again."""

import uuid
from dataclasses import dataclass

from pydicom.uid import UID

_NAMESPACE = uuid.UUID("b86450af-878d-51ca-8aa2-a5cc46e05975")


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivationParameters:
    """Everything that decides an output beside its input and the time.

    Attributes
    ----------
    software : str
        Version of this package.
    model_name, model_sha256 : str
        Name with scale, and SHA-256 of the weights file.
    scale : int
        Factor.
    consistency : bool
        Whether the output was projected on its input.
    ensemble : bool
        Whether it is the mean of eight flips and rotations.
    impulse_filter : bool
        Whether the model removes impulse noise first; the weights decide it.
    precision : str
        Arithmetic of the network.
    device : str
        Kind of device it ran on.
    memory : int or None
        Bytes that the work may take, if the user said. Device and memory hardly
        change values, but two objects with one UID must not differ at all.
    keep_private : bool
        Whether private elements are copied.
    series_description : str or None
        The user's, to stand before "not for diagnosis".
    """

    software: str
    model_name: str
    model_sha256: str
    scale: int
    consistency: bool
    precision: str
    device: str
    memory: int | None
    ensemble: bool = False
    impulse_filter: bool = False
    keep_private: bool = True
    series_description: str | None = None

    def fingerprint(self) -> str:
        """Return all of it that the weights do not decide as one line of text."""
        return "|".join(
            (
                self.software,
                self.model_sha256,
                str(self.scale),
                mode_label(consistency=self.consistency, ensemble=self.ensemble),
                self.precision,
                self.device,
                str(self.memory),
                "private" if self.keep_private else "public",
                self.series_description or "",
            )
        )

    def instance_uid(self, source_instance_uid: str, source_pixels_sha256: str) -> UID:
        """Return the SOP Instance UID of the output.

        The pixels take part because sources with the same UID and other
        pixels exist; their outputs must not hide each other in an archive.
        """
        return _uid("instance", source_instance_uid, source_pixels_sha256, self.fingerprint())

    def series_uid(self, source_series_uid: str) -> UID:
        """Return the Series Instance UID shared by all outputs of a series."""
        return _uid("series", source_series_uid, self.fingerprint())

    def device_uid(self) -> UID:
        """Return the Device UID: another model or version is another device."""
        return _uid("device", self.software, self.model_sha256)


def mode_label(*, consistency: bool, ensemble: bool) -> str:
    """Name how a network is run."""
    return ("consistent" if consistency else "free") + ("+ensemble" if ensemble else "")


def _uid(*parts: str) -> UID:
    """Return ``2.25.`` and the integer of a UUID version 5 (PS3.5 B.2)."""
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, '|'.join(parts)).int}")
