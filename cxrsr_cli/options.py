"""The user's choices for upscaling, each declared once, and the job that they apply to.

What else names an option is derived from the fields of `UpscaleOptions`: the command line
(`commands.options`), the keys of a rule of ``cxrsr serve`` (`serve.routing`), the messages to a
cluster's workers, the key of the ledger, the UIDs of outputs, and the run report.
"""

import json
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Self

from cxrsr_cli.common.byte_size import parse_byte_size
from cxrsr_cli.dicom.acceptance import AcceptanceOverride
from cxrsr_cli.dicom.transfer_syntax import OutputTransferSyntax
from cxrsr_cli.errors import CxrsrError
from cxrsr_cli.networks.config import SCALES, Precision
from cxrsr_cli.networks.model_files import DEFAULT_MODEL

NOT_FOR_DIAGNOSIS = "not for diagnosis"
"""Ends the Series Description of every output."""
MAX_SERIES_DESCRIPTION = 64 - len(f", {NOT_FOR_DIAGNOSIS}")
"""Characters of the user's part of a Series Description: VR LO has 64 (PS3.5 6.2)."""


@dataclass(frozen=True, slots=True)
class Job:
    """One file to upscale.

    Attributes
    ----------
    source, target : Path
        The input and the output.
    error : CxrsrError or None
        Why planning found that it cannot be done.
    """

    source: Path
    target: Path
    error: CxrsrError | None = None


@dataclass(frozen=True, slots=True)
class OptionInfo:
    """What is declared of an option besides its name, type and default.

    Attributes
    ----------
    help : str
        Text for the command line.
    flags : tuple of str
        Names on the command line; if empty, the field's name with dashes.
    metavar : str or None
        Stands for the value in the command's help.
    parse : callable or None
        Reads the command line's text; raises ValueError.
    in_rules : bool
        Whether each rule of ``cxrsr serve`` may set it.
    in_ledger : bool
        Whether another value makes the ledger's entry one of other work.
    in_uids : bool
        Whether another value gives the output other UIDs.
    """

    help: str
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    parse: Callable[[str], Any] | None = None
    in_rules: bool = True
    in_ledger: bool = True
    in_uids: bool = True

    @classmethod
    def of(cls, one: "Field[Any]") -> Self:
        """Return what was declared of a field."""
        info: Self = one.metadata["option"]
        return info


def declare(text: str, *flags: str, **more: Any) -> dict[str, OptionInfo]:  # noqa: ANN401
    """Return the metadata of a field that is an option; keywords are those of `OptionInfo`."""
    return {"option": OptionInfo(text, flags, **more)}


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleOptions:
    """How files are upscaled. The values may be compared, hashed and pickled.

    Attributes
    ----------
    scale : int
        Factor in each direction: 2, 4 or 8.
    model : str
        Name of a bundled model, or path of a weights file.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    precision : Precision
        Arithmetic of the network.
    memory : int or None
        Bytes that the work on one image may take; None sets no limit.
    consistency : bool or None
        Whether the output is projected so that it downsamples to its input; None
        leaves it to the model.
    self_ensemble : bool
        Mean over eight flips and rotations.
    allow : frozenset of AcceptanceOverride
        What is accepted besides chest radiographs for presentation.
    transfer_syntax : OutputTransferSyntax
        Transfer syntax of outputs.
    series_description : str or None
        The user's text before "not for diagnosis"; at most 45 ASCII characters.
    keep_private : bool
        Whether private elements are copied.
    overwrite : bool
        Whether existing outputs are replaced.

    Raises
    ------
    ValueError
        If a value is illegal.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    # The SHA-256 of the weights decides scale and model; ledger and UIDs have it.
    scale: int = field(
        default=4,
        metadata=declare("Scale factor.", "--scale", "-s", metavar="2|4|8", in_ledger=False),
    )
    model: str = field(
        default=DEFAULT_MODEL,
        metadata=declare(
            "A bundled model (see cxrsr info) or a weights file.",
            "--model",
            "-m",
            metavar="NAME|PATH",
            in_ledger=False,
            in_uids=False,
        ),
    )
    # Device and memory change values by rounding only. Two objects of one UID must not differ at
    # all; but a night without the GPU must not do an archive again.
    device: str = field(
        default="auto",
        metadata=declare(
            "Device that runs the network.",
            metavar="auto|cpu|cuda[:N]|mps",
            in_rules=False,
            in_ledger=False,
        ),
    )
    precision: Precision = field(
        default=Precision.AUTO, metadata=declare("Number format of the network; auto is fp32.")
    )
    memory: int | None = field(
        default=None,
        metadata=declare(
            "Memory limit for one image, such as 1500MiB or 4GiB (of the GPU, if one is used). "
            "Default: 2 GiB, or more where an image needs it.",
            metavar="SIZE",
            parse=parse_byte_size,
            in_rules=False,
            in_ledger=False,
        ),
    )
    consistency: bool | None = field(
        default=None,
        metadata=declare(
            "Project the output so that downsampling it gives back the input. "
            "Default: as the model states; off for models that remove noise.",
            "--consistency/--no-consistency",
        ),
    )
    self_ensemble: bool = field(
        default=False,
        metadata=declare("Average over eight flips and rotations; takes eight times as long."),
    )
    allow: frozenset[AcceptanceOverride] = field(
        default=frozenset(),
        metadata=declare(
            "Also accept images of a kind the models were not trained on; repeatable.",
            in_ledger=False,
            in_uids=False,
        ),
    )
    # The object is the same in any transfer syntax.
    transfer_syntax: OutputTransferSyntax = field(
        default=OutputTransferSyntax.SAME,
        metadata=declare("Transfer syntax of the output (lossless).", in_uids=False),
    )
    series_description: str | None = field(
        default=None,
        metadata=declare(
            f"Series Description of the output; '{NOT_FOR_DIAGNOSIS}' is appended.",
            metavar="TEXT",
        ),
    )
    keep_private: bool = field(
        default=True,
        metadata=declare("Copy private elements, or drop them.", "--keep-private/--drop-private"),
    )
    overwrite: bool = field(
        default=False,
        metadata=declare(
            "Replace existing outputs. An input is never replaced.",
            in_rules=False,
            in_ledger=False,
            in_uids=False,
        ),
    )

    def __post_init__(self) -> None:
        """Refuse illegal values."""
        if self.scale not in SCALES:
            raise ValueError(f"scale: {self.scale} is not one of {', '.join(map(str, SCALES))}")
        if self.series_description is not None:
            _check_series_description(self.series_description)

    def as_dict(self) -> dict[str, Any]:
        """Return the options by name, as plain JSON types."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}

    def ledger_key(self) -> str:
        """Return what the ledger compares: the choices, whatever the machine and version."""
        return self._text(lambda info: info.in_ledger)

    def fingerprint(self) -> str:
        """Return what decides the output's UIDs."""
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


def _check_series_description(text: str) -> None:
    """Refuse a text that cannot be written as it is.

    The object's character set is that of its source, and a backslash separates values.
    """
    plain = text.isascii() and text.isprintable() and "\\" not in text
    if not (plain and text.strip() == text and 0 < len(text) <= MAX_SERIES_DESCRIPTION):
        raise ValueError(
            f"a series description has 1 to {MAX_SERIES_DESCRIPTION} ASCII characters, no "
            f"backslash, and no space at its ends; ', {NOT_FOR_DIAGNOSIS}' is added"
        )
