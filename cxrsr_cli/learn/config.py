"""The training configuration: YAML in, checked dataclasses out."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import PlainSerializer, PlainValidator, TypeAdapter, ValidationError

from cxrsr_cli.errors import ConfigError
from cxrsr_cli.restore.architecture import Architecture
from cxrsr_cli.restore.family import FAMILY, KEY, kind_of

_FORBID: dict[str, Any] = {"extra": "forbid"}

_KINDS: dict[type[Architecture], TypeAdapter[Architecture]] = {
    kind: TypeAdapter(kind) for kind in FAMILY.values()
}


def _of_its_kind(plain: object) -> Architecture:
    if isinstance(plain, Architecture):
        return plain
    if not isinstance(plain, dict):
        raise ValueError("an architecture is a mapping of keys to values")
    given = {name: value for name, value in plain.items() if name != KEY}
    return _KINDS[kind_of(plain)].validate_python(given)


AnyArchitecture = Annotated[
    Architecture,
    PlainValidator(_of_its_kind),
    # What a configuration's hash is made of must not change when a field is added.
    PlainSerializer(Architecture.to_plain),
]
"""Of the family that its key ``network`` names."""


class Schedule(StrEnum):
    """How the learning rate falls."""

    COSINE = "cosine"
    """To zero over the whole training."""
    STEP = "step"
    """By `decay_factor` every `decay_steps`, as in the paper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Folders of images; patients must not be shared between them.

    Attributes
    ----------
    train, val : Path
        Folders of 8-bit or 16-bit grey images, read recursively.
    description : str
        Name, source and licence of the data, for the model's card.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    train: Path
    val: Path
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A run of steps with one patch size.

    Attributes
    ----------
    steps, batch : int
        Steps, and patches in each.
    patch : int
        Side of a patch in low-resolution pixels.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    steps: int
    batch: int
    patch: int

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.patch) < 1:
            raise ValueError("steps, batch and patch must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything that decides what a training makes.

    Attributes
    ----------
    name : str
        Name of the model, without its scale.
    architecture : Architecture
        The network.
    data : DataConfig
        What it learns from.
    stages : tuple of Stage
        Progressive patch sizes.
    learning_rate : float
        Peak of Adam's learning rate.
    betas : tuple of float
        Adam's.
    warmup_steps : int
        Linear rise to `learning_rate`.
    schedule : Schedule
        Fall after the rise.
    decay_steps, decay_factor
        For `Schedule.STEP`.
    gradient_clip : float
        Largest gradient norm.
    ema_decay : float
        Of the averaged weights, which are what is judged and exported.
    projection_steps : int
        Iterations of `project` between the network and the loss; 0 for none.
    noise : float
        Largest standard deviation, in network values, of Gaussian noise added
        to the input. The target and the skip get its bicubic enlargement: the
        network learns to leave noise alone, not to draw lines through it.
    warm_start : Path or None
        Weights to start from, of the same architecture.
    seed : int
        Of weights and sampling.
    val_every, checkpoint_every : int
        In steps.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    name: str
    architecture: AnyArchitecture
    data: DataConfig
    stages: tuple[Stage, ...]
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    warmup_steps: int = 50
    schedule: Schedule = Schedule.COSINE
    decay_steps: int = 1
    decay_factor: float = 0.1
    gradient_clip: float = 0.5
    ema_decay: float = 0.998
    projection_steps: int = 0
    noise: float = 0.0
    warm_start: Path | None = None
    seed: int = 0
    val_every: int = 1000
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError("name: letters, digits, '.', '_' and '-' only")
        if not self.stages:
            raise ValueError("stages: at least one is needed")
        smallest = 2 * self.rim + 1
        if min(stage.patch for stage in self.stages) < smallest:
            raise ValueError(f"stages: patch must be at least {smallest}, or no pixel is judged")
        if min(self.val_every, self.checkpoint_every, self.decay_steps) < 1:
            raise ValueError("val_every, checkpoint_every and decay_steps must be at least 1")
        if not 0 <= self.ema_decay < 1:
            raise ValueError("ema_decay must be within [0, 1)")
        if min(self.warmup_steps, self.projection_steps, self.noise) < 0:
            raise ValueError("warmup_steps, projection_steps and noise cannot be negative")
        if self.learning_rate <= 0:
            raise ValueError("learning_rate must be above 0")

    @property
    def rim(self) -> int:
        """Low-resolution pixels at a patch's edge that the loss leaves out.

        They lack neighbours that the whole image would give them.
        """
        return 2 * (1 + self.projection_steps)

    @property
    def total_steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> Stage:
        """Return the stage that 0-based `step` belongs to."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        dumped: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return dumped

    def sha256(self) -> str:
        """Return the hash of the configuration, without where the data lie."""
        plain = self.to_dict()
        for place in ("train", "val"):
            del plain["data"][place]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


_ADAPTER = TypeAdapter(TrainConfig)


def load_train_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read and check a YAML file.

    Parameters
    ----------
    path : Path
        The file.
    overrides : sequence of str
        ``section.key=value``, the value in YAML.

    Returns
    -------
    TrainConfig
        The checked configuration.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a key is unknown or its value illegal.
    """
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {type(error).__name__}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{path} holds no mapping of keys to values")
    for override in overrides:
        _override(plain, override)
    try:
        return _ADAPTER.validate_python(plain)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors()
        ]
        raise ConfigError(f"{path}: " + "; ".join(lines)) from error


def _override(plain: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"'{override}' is not of the form key=value")
    *parents, key = dotted.split(".")
    node = plain
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"'{dotted}' names no key: {parent} holds a single value")
    try:
        node[key] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of '{dotted}' is not YAML") from error
