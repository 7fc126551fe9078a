"""Ways to enlarge, by name; needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Self

from cxrsr_cli.errors import UsageError

BICUBIC = "bicubic"
MODEL = "model"
"""Stands for the model that the command was given."""

_IMPULSE_FILTER = "+filtered"
_ENSEMBLE = "+ensemble"
_CONSISTENT = "+consistent"
_SUFFIXES = (_IMPULSE_FILTER, _ENSEMBLE, _CONSISTENT)


@dataclass(frozen=True, slots=True)
class Method:
    """What makes an estimate, and what is done to it.

    Attributes
    ----------
    base : str
        `BICUBIC`, `MODEL`, or a model's name or path. In a path ``{scale}``
        stands for the scale.
    filtered : bool
        Made of the input without impulse noise (`remove_impulses`).
    ensemble : bool
        Mean over the network's eight flips and rotations.
    consistent : bool
        Projected on the legal images that downsample to what it was made of.
    """

    base: str
    filtered: bool = False
    ensemble: bool = False
    consistent: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name such as ``rir-s+ensemble+consistent``.

        Raises
        ------
        UsageError
            If there is no base, or an ensemble of what is no network.
        """
        base, found = text.strip(), set[str]()
        while suffix := next((end for end in _SUFFIXES if base.endswith(end)), None):
            base = base.removesuffix(suffix)
            found.add(suffix)
        if not base:
            raise UsageError(f"{text!r} names no method: bicubic, a model's name, or a path")
        if base == BICUBIC and _ENSEMBLE in found:
            raise UsageError("bicubic has no +ensemble: it is the same from all sides")
        return cls(base, *(suffix in found for suffix in _SUFFIXES))

    @property
    def is_model(self) -> bool:
        """Whether a network makes the estimate."""
        return self.base != BICUBIC

    def __str__(self) -> str:
        base = PurePath(self.base)
        name = base.stem if base.suffix == ".safetensors" else base.name
        done = (self.filtered, self.ensemble, self.consistent)
        return name + "".join(
            suffix * is_done for suffix, is_done in zip(_SUFFIXES, done, strict=True)
        )

    def resolve_model(self, model: str, scale: int) -> str:
        """Return the name or path of its model.

        Parameters
        ----------
        model : str
            What `MODEL` stands for.
        scale : int
            What ``{scale}`` stands for.
        """
        base = model if self.base == MODEL else self.base
        return base.replace("{scale}", str(scale))


REFERENCE = Method(BICUBIC, consistent=True)
"""Range-aware consistent bicubic: the floor that a network must clear."""

CONSISTENT_MODEL = Method(MODEL, consistent=True)
"""What `upscale` does."""

DEFAULT = (Method(BICUBIC), REFERENCE, Method(MODEL), CONSISTENT_MODEL)


def parse_methods(text: str, reference: Method = REFERENCE) -> tuple[Method, ...]:
    """Read names parted by commas.

    Parameters
    ----------
    text : str
        Such as ``bicubic,rir-s+consistent``.
    reference : Method
        Added at the front if it is not among them.

    Returns
    -------
    tuple of Method
        In the order given, each once.

    Raises
    ------
    UsageError
        If one cannot be read, or two would be called the same.
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
            raise UsageError(f"{other.base} and {method.base} would both be called '{method}'")
    return tuple(methods)
