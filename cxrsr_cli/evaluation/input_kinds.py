"""Kinds of input: how an original is reduced and degraded before a method enlarges it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import torch

from cxrsr_cli.errors import UsageError
from cxrsr_cli.images.image_files import GrayscaleImage
from cxrsr_cli.training.degradation import DegradationConfig, Kernel, NoiseKind, degrade_patch

_GRAIN_PIXELS = 0.6
"""Standard deviation of the filter that correlates grain, in pixels of the input."""
_SEED_BYTES = 7
"""A seed of PyTorch has at most 63 bits."""


def _kernel(kernel: Kernel) -> DegradationConfig:
    return DegradationConfig(kernels={kernel: 1.0})


def _noise(kind: NoiseKind) -> Callable[[float], DegradationConfig]:
    def degradation(percent: float) -> DegradationConfig:
        strength = percent / 100
        return DegradationConfig(
            noise=(strength, strength),
            noise_kinds={kind: 1.0},
            grain=(_GRAIN_PIXELS, _GRAIN_PIXELS),
        )

    return degradation


def _jpeg(quality: float) -> DegradationConfig:
    return DegradationConfig(jpeg=(int(quality), int(quality)))


def _salt_and_pepper(percent: float) -> DegradationConfig:
    return DegradationConfig(salt_pepper=(percent / 100, percent / 100))


def _blur(pixels: float) -> DegradationConfig:
    return DegradationConfig(kernels={Kernel.BLUR: 1.0}, blur=(pixels, pixels))


_PLAIN = {
    "bicubic": DegradationConfig(),
    "binned": _kernel(Kernel.BLOCK_MEAN),
    "bilinear": _kernel(Kernel.BILINEAR),
    "lanczos": _kernel(Kernel.LANCZOS),
    "blurred": _blur(0.5),
}
"""Kinds without an amount."""

_WITH_AMOUNT: dict[str, tuple[Callable[[float], DegradationConfig], float, float]] = {
    "jpeg": (_jpeg, 1, 100),
    "white": (_noise(NoiseKind.WHITE), 0.01, 100),
    "quantum": (_noise(NoiseKind.QUANTUM), 0.01, 100),
    "grain": (_noise(NoiseKind.GRAIN), 0.01, 100),
    "salt-pepper": (_salt_and_pepper, 0.01, 100),
}
"""Kinds with an amount: how they are made, the smallest and the largest amount."""


@dataclass(frozen=True, slots=True)
class InputKind:
    """A kind of input.

    Attributes
    ----------
    name : str
        Such as ``binned`` or ``white-0.5``.
    degradation : DegradationConfig
        How it is made.
    """

    name: str
    degradation: DegradationConfig = field(compare=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a name, such as ``binned`` or ``white-1.5``.

        Raises
        ------
        UsageError
            If there is no such kind, or its amount is illegal.
        """
        name = text.strip()
        if name in _PLAIN:
            return cls(name, _PLAIN[name])
        family, _, written = name.rpartition("-")
        if family not in _WITH_AMOUNT:
            known = ", ".join([*_PLAIN, *(f"{family}-AMOUNT" for family in _WITH_AMOUNT)])
            raise UsageError(f"no kind of input is named {text!r}; it must be all or {known}")
        make, smallest, largest = _WITH_AMOUNT[family]
        try:
            amount = float(written)
        except ValueError:
            amount = 0.0
        if not smallest <= amount <= largest or (family == "jpeg" and amount % 1):
            kind = "a whole number" if family == "jpeg" else "a number"
            raise UsageError(
                f"the amount of {text!r} must be {kind} from {smallest:g} to {largest:g}"
            )
        return cls(f"{family}-{amount:g}", make(amount))

    def __str__(self) -> str:
        return self.name

    def reduce(self, original: GrayscaleImage, scale: int) -> torch.Tensor:
        """Make the low-resolution input of an original.

        Parameters
        ----------
        original : GrayscaleImage
            Its sides are multiples of `scale`.
        scale : int
            Factor.

        Returns
        -------
        torch.Tensor
            ``(1, 1, H / scale, W / scale)`` float32, whole stored values within the legal
            range. The image's name is the seed: every method, run and amount meets the same
            noise.
        """
        if not self.degradation.is_active:
            return original.downsample(scale)
        span = original.data_range
        digest = hashlib.sha256(original.name.encode()).digest()
        degraded = degrade_patch(
            (original.values[0] - original.minimum) / span,
            scale,
            self.degradation,
            step=1 / span,
            seed=int.from_bytes(digest[:_SEED_BYTES], "little"),
        )
        return (degraded.low * span).round_().add_(original.minimum)[None]


ALL_INPUTS = tuple(
    map(
        InputKind.parse,
        (*_PLAIN, "jpeg-90", "jpeg-75", "white-0.5", "white-1", "white-2", "quantum-1", "grain-1",
         "salt-pepper-0.5", "salt-pepper-1", "salt-pepper-2"),
    )
)  # fmt: skip
"""What ``all`` stands for."""


def parse_inputs(text: str) -> tuple[InputKind, ...]:
    """Parse names separated by commas; ``all`` stands for `ALL_INPUTS`.

    Raises
    ------
    UsageError
        If a name is illegal, or there is none.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    kinds = dict[str, InputKind]()
    for name in names:
        for kind in ALL_INPUTS if name == "all" else (InputKind.parse(name),):
            kinds.setdefault(kind.name, kind)
    if not kinds:
        raise UsageError("no kind of input is named")
    return tuple(kinds.values())
