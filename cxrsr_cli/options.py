"""The user's choices for upscaling, each declared once, and the job that they apply to.

What else names an option is derived from the fields of `UpscaleOptions`: the command line
(`commands.options`), the keys of a rule of ``cxrsr serve`` (`serve.routing`), the messages to a
cluster's workers, the key of the ledger, the UIDs of outputs, and the run report.
"""

import json
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, ClassVar, Self

from cxrsr_cli.common.byte_size import parse_byte_size
from cxrsr_cli.dicom.acceptance import AcceptanceOverride
from cxrsr_cli.dicom.transfer_syntax import OutputTransferSyntax
from cxrsr_cli.errors import CxrsrError
from cxrsr_cli.networks.config import DEFAULT_NOISE_REDUCTION, SCALES, Agreement, Precision
from cxrsr_cli.networks.model_files import DEFAULT_MODEL

NOT_FOR_DIAGNOSIS = "not for diagnosis"
"""Ends the Series Description of every output."""
MAX_SERIES_DESCRIPTION = 64 - len(f", {NOT_FOR_DIAGNOSIS}")
"""Characters of the user's part of a Series Description: VR LO has 64 (PS3.5 6.2)."""


class ImageTypeRule(StrEnum):
    """What value 2 of Image Type is (PS3.3 C.7.6.1.1.2)."""

    SECONDARY = "secondary"
    """Created after the examination: hanging protocols can tell."""
    SOURCE = "source"
    """As the source, or PRIMARY."""


class EquipmentRule(StrEnum):
    """What General Equipment names (PS3.3 C.7.5.1)."""

    APPLICATION = "application"
    """This software; the source's equipment becomes an item of Contributing Equipment."""
    SOURCE = "source"
    """The source's equipment."""


class SeriesNumberRule(StrEnum):
    """Where Series Number comes from (PS3.3 C.7.3.1)."""

    UNIQUE = "unique"
    """The Series Instance UID: ten digits, which no other series has."""
    SOURCE = "source"
    """The source's, times 100, and the scale: 304 for series 3 at scale 4."""


@dataclass(frozen=True, slots=True)
class Job:
    """One file to upscale."""

    source: Path
    target: Path
    error: CxrsrError | None = None
    """Why it cannot be done, if planning found a reason."""
    is_named: bool = True
    """Whether the user named the file. One that was found in a folder or DICOMDIR is skipped if
    it is out of scope."""


@dataclass(frozen=True, slots=True)
class OptionInfo:
    """What is declared for an option besides its name, type and default."""

    help: str
    flags: tuple[str, ...] = ()
    """Names on the command line; if there are none, the field's name with dashes."""
    metavar: str | None = None
    parse: Callable[[str], Any] | None = None
    """Reads the command line's text; raises ValueError."""
    in_rules: bool = True
    """Whether each rule of ``cxrsr serve`` may set it."""
    in_ledger: bool = True
    """Whether outputs in the ledger are made again after another value is chosen."""
    in_uids: bool = True
    """Whether another value gives the output other UIDs."""

    @classmethod
    def of(cls, one: "Field[Any]") -> Self:
        """Return what was declared for a field."""
        info: Self = one.metadata["option"]
        return info


def option(default: object, text: str, *flags: str, **more: Any) -> Any:  # noqa: ANN401 - as `field`
    """Declare a field that is an option; keywords are those of `OptionInfo`."""
    return field(default=default, metadata={"option": OptionInfo(text, flags, **more)})


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleOptions:
    """How files are upscaled; each field is declared with its help text.

    Raises
    ------
    ValueError
        If a value is illegal.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    # The SHA-256 of the weights decides scale and model; ledger and UIDs have it.
    scale: int = option(4, "Scale factor.", "--scale", "-s", metavar="2|4|8", in_ledger=False)
    model: str = option(
        DEFAULT_MODEL,
        "A bundled model (see cxrsr info) or a weights file.",
        *("--model", "-m"),
        metavar="NAME|PATH",
        in_ledger=False,
        in_uids=False,
    )
    # Device and memory change values by rounding only. Objects with the same UID must not differ
    # at all, but an archive must not be upscaled again because the GPU is missing in one run.
    device: str = option(
        "auto",
        "Device that runs the network.",
        metavar="auto|cpu|cuda[:N]|mps",
        in_rules=False,
        in_ledger=False,
    )
    precision: Precision = option(Precision.AUTO, "Number format of the network; auto is fp32.")
    memory: int | None = option(
        None,
        "Memory limit for one image, such as 1500MiB or 4GiB (of the GPU, if one is used). "
        "Default: 2 GiB, or more where an image needs it.",
        metavar="SIZE",
        parse=parse_byte_size,
        in_rules=False,
        in_ledger=False,
    )
    agreement: Agreement | None = option(
        None,
        "How close the mean of each block of the output is to its source pixel: equal, to within "
        "the estimated noise, or not enforced. Default: noise, if the model states no other.",
    )
    noise_reduction: float | None = option(
        None,
        "Share of the source's noise to remove, from 0 to 1; with 0 the output shows the noise "
        f"as bicubic interpolation does. Default: {DEFAULT_NOISE_REDUCTION:g}, but 0 with exact "
        "agreement and with a model that cannot.",
        metavar="0..1",
    )
    self_ensemble: bool = option(
        False, "Average over eight flips and rotations; takes eight times as long."
    )
    allow: frozenset[AcceptanceOverride] = option(
        frozenset(),
        "Also accept images of a kind the models were not trained on; repeatable.",
        in_ledger=False,
        in_uids=False,
    )
    # The object is the same in any transfer syntax.
    transfer_syntax: OutputTransferSyntax = option(
        OutputTransferSyntax.SAME, "Transfer syntax of the output (lossless).", in_uids=False
    )
    series_description: str | None = option(
        None,
        f"Series Description of the output; '{NOT_FOR_DIAGNOSIS}' is appended.",
        metavar="TEXT",
    )
    keep_private: bool = option(
        True, "Copy private elements, or drop them.", "--keep-private/--drop-private"
    )
    image_type_2: ImageTypeRule = option(
        ImageTypeRule.SECONDARY,
        "Value 2 of Image Type: SECONDARY, by which hanging protocols tell outputs from images "
        "of the examination, or the source's.",
    )
    equipment: EquipmentRule = option(
        EquipmentRule.APPLICATION,
        "General Equipment: this application, or the source's equipment.",
    )
    series_number: SeriesNumberRule = option(
        SeriesNumberRule.UNIQUE,
        "Series Number: one of its own, or the source's times 100 and the scale.",
    )
    overwrite: bool = option(
        False,
        "Replace existing outputs. An input is never replaced.",
        in_rules=False,
        in_ledger=False,
        in_uids=False,
    )

    def __post_init__(self) -> None:
        """Refuse illegal values."""
        if self.scale not in SCALES:
            raise ValueError(f"scale: {self.scale} is not one of {', '.join(map(str, SCALES))}")
        if self.noise_reduction is not None and not 0 <= self.noise_reduction <= 1:
            raise ValueError(f"noise_reduction: {self.noise_reduction} is not within 0 to 1")
        text, longest = self.series_description, MAX_SERIES_DESCRIPTION
        # The object has the character set of its source, and a backslash separates values.
        if text is not None and not (
            text.isascii()
            and text.isprintable()
            and "\\" not in text
            and text.strip() == text
            and 0 < len(text) <= longest
        ):
            raise ValueError(
                f"a series description has 1 to {longest} ASCII characters, no backslash, and "
                f"no space at its ends; ', {NOT_FOR_DIAGNOSIS}' is added"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the options by name, as plain JSON types."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}

    def recipe(self) -> dict[str, Any]:
        """Return the options that decide an output, and the model's name, as plain JSON types."""
        counted = {one.name for one in fields(self) if OptionInfo.of(one).in_uids} | {"model"}
        return {name: value for name, value in self.as_dict().items() if name in counted}

    def ledger_key(self) -> str:
        """Return the options that the ledger compares; machine and version do not count."""
        return self._text(lambda info: info.in_ledger)

    def fingerprint(self) -> str:
        """Return the options that decide the output's UIDs."""
        return self._text(lambda info: info.in_uids)

    def _text(self, counts: Callable[[OptionInfo], bool]) -> str:
        """Return options as text. Defaults are left out, so that a new option changes no key."""
        chosen = {
            one.name: _plain(value)
            for one in fields(self)
            if counts(OptionInfo.of(one)) and (value := getattr(self, one.name)) != one.default
        }
        return json.dumps(chosen, sort_keys=True)


def _plain(value: object) -> object:
    if isinstance(value, frozenset):
        return sorted(map(_plain, value))  # type: ignore[type-var] # options are sets of texts
    return value.value if isinstance(value, Enum) else value
