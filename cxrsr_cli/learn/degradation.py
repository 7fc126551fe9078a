"""What may be done to a training patch beside shrinking it, as plain data without torch."""

from dataclasses import dataclass
from typing import Any, ClassVar

Range = tuple[float, float]

_DEPTHS = (8, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class DegradationConfig:
    """Damage to the input of a patch, drawn anew for each; None is off.

    Every pair is the smallest and the largest strength, drawn uniformly. They
    act in the order in which they stand here. `depth` changes the target; all
    the others change the input alone, so that a network learns to undo them
    (`TrainConfig.noise` is the one that a network learns to leave alone).
    Strengths are shares of the legal stored range where no unit is named.

    Attributes
    ----------
    depth : tuple of int or None
        Bits, within 8 to 16. First, uniform noise within a step of the stored
        values is added to the original, so that a target shows no steps; at
        the end the input is rounded to a drawn number of bits instead of the
        original's.
    blur : tuple of float or None
        Standard deviation of a Gaussian, in high-resolution pixels, before
        the shrinking.
    poisson : tuple of float or None
        Shot noise, by its standard deviation at the bright end of the range;
        it falls with the root of the value.
    gaussian : tuple of float or None
        Standard deviation of additive white noise.
    salt_pepper : tuple of float or None
        Share of pixels set to either end of the range, half each; 0.005 to
        0.02 in the paper. Comes before the rounding.
    jpeg : tuple of int or None
        Quality, 1 to 100, of a JPEG of 8 bits, after the rounding.
    chance : float
        Of each one but `depth`, for each patch.

    Raises
    ------
    ValueError
        If a strength is illegal.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    depth: tuple[int, int] | None = None
    blur: Range | None = None
    poisson: Range | None = None
    gaussian: Range | None = None
    salt_pepper: Range | None = None
    jpeg: tuple[int, int] | None = None
    chance: float = 1.0

    def __post_init__(self) -> None:
        limits = {
            "depth": _DEPTHS,
            "blur": (0, 20),
            "poisson": (0, 1),
            "gaussian": (0, 1),
            "salt_pepper": (0, 1),
            "jpeg": (1, 100),
        }
        for name, (smallest, largest) in limits.items():
            strength = getattr(self, name)
            if strength and not smallest <= strength[0] <= strength[1] <= largest:
                raise ValueError(f"{name} must rise, within {smallest} to {largest}")
        if not 0 < self.chance <= 1:
            raise ValueError("chance must be within (0, 1]")

    @property
    def has_damage(self) -> bool:
        """Whether the input is more than the shrunk and rounded target.

        Then an output that downsamples to the input would keep the damage.
        """
        each = (self.blur, self.poisson, self.gaussian, self.salt_pepper, self.jpeg)
        return any(strength is not None for strength in each)

    @property
    def is_active(self) -> bool:
        """Whether anything is done at all."""
        return self.has_damage or self.depth is not None
