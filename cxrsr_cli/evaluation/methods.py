"""Methods of upscaling by name; needs no torch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Self

from cxrsr_cli.errors import UsageError
from cxrsr_cli.networks.config import Agreement

BICUBIC = "bicubic"
MODEL = "model"
"""The model of the option ``--model``."""

_IMPULSE_FILTER = "+impulse-filter"
_ENSEMBLE = "+ensemble"
_CONSISTENT = "+consistent"
_NOISE_REDUCTION = "+noise-reduction-"
_FIELDS: dict[str, tuple[str, Any]] = {
    _IMPULSE_FILTER: ("impulse_filter", True),
    _ENSEMBLE: ("ensemble", True),
    **{f"+{agreement}": ("agreement", agreement) for agreement in Agreement},
    _CONSISTENT: ("consistent", True),
}
"""What each suffix sets, in the order of their printing."""
_AMOUNT = re.compile(rf"{re.escape(_NOISE_REDUCTION)}([0-9.]+)$")


@dataclass(frozen=True, slots=True)
class Method:
    """A way to upscale an image.

    Attributes
    ----------
    base : str
        `BICUBIC`, `MODEL`, or the name or path of a model. In a path,
        ``{scale}`` is replaced by the scale.
    impulse_filter : bool
        Whether impulse noise is removed from the input first
        (`cxrsr_cli.inference.impulse_filter`).
    noise_reduction : float or None
        Share of the input's noise that a network removes; None as `upscale` does.
    ensemble : bool
        Whether the output is the mean over eight flips and rotations.
    agreement : Agreement or None
        How close the means of the output's blocks are to the (filtered) input;
        None as `upscale` does. For bicubic interpolation, None or exact.
    consistent : bool
        Whether the output is projected on the legal images that downsample to
        the (filtered) input by the bicubic kernel, as in the paper's protocol.
    """

    base: str
    impulse_filter: bool = False
    noise_reduction: float | None = None
    ensemble: bool = False
    agreement: Agreement | None = None
    consistent: bool = False

    def __post_init__(self) -> None:
        if self.noise_reduction is not None and not 0 <= self.noise_reduction <= 1:
            raise UsageError("the amount of +noise-reduction must be within 0 to 1")
        if self.consistent and self.agreement:
            raise UsageError(f"+{self.agreement} and {_CONSISTENT} exclude each other")
        if self.is_model:
            return
        if self.ensemble:
            raise UsageError("bicubic has no +ensemble: flips and rotations do not change it")
        if self.noise_reduction is not None or self.agreement not in (None, Agreement.EXACT):
            raise UsageError("bicubic can have +impulse-filter and +exact or +consistent only")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a name such as ``rir-s+ensemble+exact``.

        Raises
        ------
        UsageError
            If there is no base, or suffixes are illegal together.
        """
        base, found = text.strip(), dict[str, Any]()
        while True:
            if amount := _AMOUNT.search(base):
                suffix, name = amount[0], "noise_reduction"
                try:
                    value: Any = float(amount[1])
                except ValueError:
                    raise UsageError(f"{suffix} has no number") from None
            elif suffix := next((end for end in _FIELDS if base.endswith(end)), ""):
                name, value = _FIELDS[suffix]
            else:
                break
            if found.setdefault(name, value) != value:
                raise UsageError(f"{text.strip()} names two values of {name.replace('_', '-')}")
            base = base.removesuffix(suffix)
        if not base:
            raise UsageError(f"{text!r} names no method: bicubic, a model's name, or a path")
        return cls(base, **found)

    @property
    def is_model(self) -> bool:
        """Whether the method uses a network."""
        return self.base != BICUBIC

    def __str__(self) -> str:
        base = PurePath(self.base)
        parts = [base.stem if base.suffix == ".safetensors" else base.name]
        if self.noise_reduction is not None:
            parts.append(f"{_NOISE_REDUCTION}{self.noise_reduction:g}")
        parts += [end for end, (name, value) in _FIELDS.items() if getattr(self, name) == value]
        return "".join(parts)

    def resolve_model(self, model: str, scale: int) -> str:
        """Return the name or path of the model.

        Parameters
        ----------
        model : str
            Name or path that replaces `MODEL`.
        scale : int
            Number that replaces ``{scale}``.
        """
        base = model if self.base == MODEL else self.base
        return base.replace("{scale}", str(scale))


def parse_methods(text: str, reference: Method) -> tuple[Method, ...]:
    """Parse names separated by commas.

    Parameters
    ----------
    text : str
        Such as ``bicubic,rir-s+exact``.
    reference : Method
        Inserted at the front if it is not in the list.

    Returns
    -------
    tuple of Method
        In the given order, without duplicates.

    Raises
    ------
    UsageError
        If a name is illegal, or two methods would have the same name.
    """
    methods = dict.fromkeys(Method.parse(part) for part in text.split(",") if part.strip())
    if not methods:
        raise UsageError("no method is named")
    ordered = tuple(methods) if reference in methods else (reference, *methods)
    return _distinct(ordered)


def _distinct(methods: Sequence[Method]) -> tuple[Method, ...]:
    seen = dict[str, Method]()
    for method in methods:
        other = seen.setdefault(str(method), method)
        if other != method:
            raise UsageError(f"{other.base} and {method.base} would both have the name '{method}'")
    return tuple(methods)
