"""What is evaluated by default, and what the paper evaluated; needs no torch."""

from dataclasses import dataclass
from enum import StrEnum


class ProtocolName(StrEnum):
    """Which images are made, and what is the first figure."""

    MIXED = "mixed"
    """Inputs as users have them, judged outside burnt-in marks, against bicubic interpolation."""
    PAPER = "paper"
    """Bicubic inputs, judged on whole images, against consistent bicubic interpolation."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """What the options of `evaluate` stand for if they are not given.

    Attributes
    ----------
    inputs, methods, reference : str
        As the options of the same names take them.
    whole_image : bool
        Whether PSNR of the whole image is the first figure, with the marks.
    """

    inputs: str
    methods: str
    reference: str
    whole_image: bool


PROTOCOLS = {
    ProtocolName.MIXED: Protocol(
        inputs="bicubic,binned,jpeg-90,white-1,grain-1",
        methods="bicubic,model",
        reference="bicubic",
        whole_image=False,
    ),
    ProtocolName.PAPER: Protocol(
        inputs="bicubic",
        methods="bicubic,bicubic+consistent,model+consistent",
        reference="bicubic+consistent",
        whole_image=True,
    ),
}
