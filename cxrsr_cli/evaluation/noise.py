"""Noise that is added to the low-resolution input; needs no torch."""

import hashlib
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cxrsr_cli.errors import UsageError


class NoiseKind(StrEnum):
    """Kind of noise, and the meaning of its amount."""

    SALT_AND_PEPPER = "sp"
    """Share of pixels that are set to the smallest or the largest legal value, on average half
    of them to each; the paper uses 0.005 to 0.02."""
    GAUSS = "gauss"
    """Standard deviation as a share of the legal range."""


@dataclass(frozen=True, slots=True)
class Noise:
    """A kind of noise and its amount.

    Attributes
    ----------
    kind : NoiseKind
        Kind of noise.
    amount : float
        Above 0 and at most 1, in the unit of its kind.
    """

    kind: NoiseKind
    amount: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``KIND:AMOUNT``, such as ``sp:0.01``.

        Raises
        ------
        UsageError
            If the text has another form.
        """
        kind, _, amount = text.partition(":")
        try:
            noise = cls(NoiseKind(kind), float(amount))
        except ValueError:
            noise = None
        if noise is None or not (math.isfinite(noise.amount) and 0 < noise.amount <= 1):
            kinds = ", ".join(f"{kind}:AMOUNT" for kind in NoiseKind)
            raise UsageError(f"noise is {text!r}; it must be {kinds} with an amount in ]0, 1]")
        return noise

    def __str__(self) -> str:
        return f"{self.kind}:{self.amount:g}"

    def add(
        self, values: NDArray[np.float32], *, minimum: float, maximum: float, name: str
    ) -> NDArray[np.float32]:
        """Add the noise.

        Parameters
        ----------
        values : numpy.ndarray
            Stored values, any shape.
        minimum, maximum : float
            Legal range.
        name : str
            Name of the image. It is the seed of the generator, so that every
            method, scale, amount and run adds the same noise to an image of the
            same size.

        Returns
        -------
        numpy.ndarray
            Whole numbers within the legal range, shape of `values`.
        """
        digest = hashlib.sha256(name.encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        match self.kind:
            case NoiseKind.SALT_AND_PEPPER:
                chance = generator.random(values.shape)
                noisy = np.where(chance < self.amount, maximum, values)
                noisy = np.where(chance < self.amount / 2, minimum, noisy)
            case NoiseKind.GAUSS:
                deviation = self.amount * (maximum - minimum)
                noisy = values + generator.normal(0, deviation, values.shape)
        return noisy.round().clip(minimum, maximum).astype(np.float32)
