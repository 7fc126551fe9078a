"""Methods of upscaling by name; needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Self

from cxrsr_cli.errors import UsageError

BICUBIC = "bicubic"
MODEL = "model"
"""The model of the option ``--model``."""

_IMPULSE_FILTER = "+impulse-filter"
_ENSEMBLE = "+ensemble"
_CONSISTENT = "+consistent"
_SUFFIXES = (_IMPULSE_FILTER, _ENSEMBLE, _CONSISTENT)


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
    ensemble : bool
        Whether the output is the mean over eight flips and rotations.
    consistent : bool
        Whether the output is projected onto the legal images that downsample to
        the (filtered) input.
    """

    base: str
    impulse_filter: bool = False
    ensemble: bool = False
    consistent: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a name such as ``rir-s+ensemble+consistent``.

        Raises
        ------
        UsageError
            If there is no base, or the base of an ensemble is not a network.
        """
        base, suffixes = text.strip(), set[str]()
        while suffix := next((end for end in _SUFFIXES if base.endswith(end)), None):
            base = base.removesuffix(suffix)
            suffixes.add(suffix)
        if not base:
            raise UsageError(f"{text!r} names no method: bicubic, a model's name, or a path")
        if base == BICUBIC and _ENSEMBLE in suffixes:
            raise UsageError("bicubic has no +ensemble: flips and rotations do not change it")
        return cls(base, *(suffix in suffixes for suffix in _SUFFIXES))

    @property
    def is_model(self) -> bool:
        """Whether the method uses a network."""
        return self.base != BICUBIC

    def __str__(self) -> str:
        base = PurePath(self.base)
        name = base.stem if base.suffix == ".safetensors" else base.name
        flags = (self.impulse_filter, self.ensemble, self.consistent)
        return name + "".join(suffix * flag for suffix, flag in zip(_SUFFIXES, flags, strict=True))

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


REFERENCE = Method(BICUBIC, consistent=True)
"""Range-aware consistent bicubic, which a network must exceed."""

CONSISTENT_MODEL = Method(MODEL, consistent=True)
"""What ``cxrsr upscale`` does."""

DEFAULT = (Method(BICUBIC), REFERENCE, Method(MODEL), CONSISTENT_MODEL)


def parse_methods(text: str, reference: Method = REFERENCE) -> tuple[Method, ...]:
    """Parse names separated by commas.

    Parameters
    ----------
    text : str
        Such as ``bicubic,rir-s+consistent``.
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
