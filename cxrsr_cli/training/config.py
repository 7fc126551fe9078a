"""The training configuration: YAML in, checked dataclasses out."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import PlainSerializer, PlainValidator, TypeAdapter

from cxrsr_cli.common.yaml_config import load_yaml_mapping, validate
from cxrsr_cli.dicom.acceptance import AcceptanceOverride
from cxrsr_cli.errors import ConfigError
from cxrsr_cli.networks.config import NetworkConfig, Precision
from cxrsr_cli.networks.registry import DEFAULT_FAMILY, FAMILY_KEY, config_class
from cxrsr_cli.training.degradation import DegradationConfig

_FORBID: dict[str, Any] = {"extra": "forbid"}


def _of_its_family(plain: object) -> NetworkConfig:
    if isinstance(plain, NetworkConfig):
        return plain
    if not isinstance(plain, dict):
        raise ValueError("an architecture is a mapping of keys to values")
    given = dict(plain)
    family = config_class(given.pop(FAMILY_KEY, DEFAULT_FAMILY))
    return TypeAdapter(family).validate_python(given)


AnyArchitecture = Annotated[
    NetworkConfig,
    PlainValidator(_of_its_family),
    # What a configuration's hash is made of must not change when a field is added.
    PlainSerializer(NetworkConfig.to_dict),
]
"""Of the family that its key ``network`` names."""


class Schedule(StrEnum):
    """How the learning rate falls."""

    COSINE = "cosine"
    """To zero over the whole training."""
    STEP = "step"
    """By `decay_factor` every `decay_steps`, as in the paper."""


class Loss(StrEnum):
    """What is made small."""

    L1 = "l1"
    """Mean absolute difference, as in the paper."""
    MSE = "mse"
    """Mean squared difference: PSNR's own objective."""


class Optimizer(StrEnum):
    """What makes it small."""

    ADAM = "adam"
    ADAMW = "adamw"
    """Adam with decoupled weight decay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Images; patients must not be shared between training and validation.

    Attributes
    ----------
    train, val : Path
        Folders read recursively, or text files that list one path a line,
        relative to themselves. Grey PNG, TIFF and JPEG of 8 or 16 bits, and
        DICOM at its full depth.
    description : str
        Name, source and licence of the data, for the model's card.
    patient_id_regex : str or None
        Regular expression that finds the patient in a file's name: its first
        group, or all it matches. DICOM says it by Patient ID as well.
    allow : tuple of Permission
        DICOM beyond chest radiographs for presentation that is taken.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    train: Path
    val: Path
    description: str
    patient_id_regex: str | None = None
    allow: tuple[AcceptanceOverride, ...] = ()

    def __post_init__(self) -> None:
        try:
            re.compile(self.patient_id_regex or "")
        except re.error as error:
            raise ValueError(f"patient_id_regex is no regular expression: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class StageConfig:
    """A run of steps with one patch size.

    Attributes
    ----------
    steps, batch_size : int
        Steps, and patches in each.
    patch_size : int
        Side of a patch in low-resolution pixels.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    steps: int
    batch_size: int
    patch_size: int

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.patch_size) < 1:
            raise ValueError("steps, batch and patch_size must be at least 1")


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
    adam_betas : tuple of float
        Adam's.
    optimizer : Optimizer
        Adam, or AdamW with `weight_decay`.
    weight_decay : float
        AdamW's.
    loss : Loss
        Between output and target.
    fft_loss_weight : float
        Weight of the L1 between their Fourier transforms, added to `loss`.
    precision : Precision
        ``fp32``, or ``bf16``: the network's convolutions in bfloat16 on a GPU.
        A CPU, where it is slower, stays with float32.
    warmup_steps : int
        Linear rise to `learning_rate`.
    schedule : Schedule
        Fall after the rise.
    decay_steps, decay_factor
        For `Schedule.STEP`.
    max_grad_norm : float
        Largest gradient norm.
    ema_decay : float
        Of the averaged weights, which are what is judged and exported.
    projection_steps : int
        Iterations of `project` between the network and the loss; 0 for none.
    preserved_noise : float
        Largest standard deviation, in network values, of Gaussian noise added
        to the input. The target and the skip get its bicubic enlargement: the
        network learns to leave noise alone, not to draw lines through it.
    degradation : Degradation
        Damage to the input that a network learns to undo.
    init_from : Path or None
        Weights to start from (`cxrsr_cli.training.warm_start`).
    seed : int
        Of weights and sampling.
    val_every, checkpoint_every : int
        In steps.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    name: str
    architecture: AnyArchitecture
    data: DataConfig
    stages: tuple[StageConfig, ...]
    learning_rate: float = 1e-3
    adam_betas: tuple[float, float] = (0.9, 0.99)
    optimizer: Optimizer = Optimizer.ADAM
    weight_decay: float = 0.0
    loss: Loss = Loss.L1
    fft_loss_weight: float = 0.0
    precision: Precision = Precision.FP32
    warmup_steps: int = 50
    schedule: Schedule = Schedule.COSINE
    decay_steps: int = 1
    decay_factor: float = 0.1
    max_grad_norm: float = 0.5
    ema_decay: float = 0.998
    projection_steps: int = 0
    preserved_noise: float = 0.0
    degradation: DegradationConfig = field(default_factory=DegradationConfig)
    init_from: Path | None = None
    seed: int = 0
    val_every: int = 1000
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError("name: letters, digits, '.', '_' and '-' only")
        if not self.stages:
            raise ValueError("stages: at least one is needed")
        smallest = 2 * self.loss_border + 1
        if min(stage.patch_size for stage in self.stages) < smallest:
            raise ValueError(
                f"stages: patch_size must be at least {smallest}, or no pixel is judged"
            )
        if min(self.val_every, self.checkpoint_every, self.decay_steps) < 1:
            raise ValueError("val_every, checkpoint_every and decay_steps must be at least 1")
        if not 0 <= self.ema_decay < 1:
            raise ValueError("ema_decay must be within [0, 1)")
        if min(self.warmup_steps, self.projection_steps, self.preserved_noise) < 0:
            raise ValueError("warmup_steps, projection_steps and noise cannot be negative")
        if self.learning_rate <= 0:
            raise ValueError("learning_rate must be above 0")
        if min(self.weight_decay, self.fft_loss_weight) < 0:
            raise ValueError("weight_decay and fft_loss_weight cannot be negative")
        if self.weight_decay and self.optimizer is not Optimizer.ADAMW:
            raise ValueError("weight_decay needs optimizer: adamw")
        if self.precision not in (Precision.FP32, Precision.BF16):
            raise ValueError("precision must be fp32 or bf16")
        if self.projection_steps and not self.consistency:
            raise ValueError("projection_steps would put back the damage of degradation")

    @property
    def consistency(self) -> bool:
        """Whether the model's outputs are to downsample to their inputs."""
        return not self.degradation.has_damage

    @property
    def loss_border(self) -> int:
        """Low-resolution pixels at a patch's edge that the loss leaves out.

        They lack neighbours that the whole image would give them.
        """
        return 2 * (1 + self.projection_steps)

    @property
    def total_steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> StageConfig:
        """Return the stage that 0-based `step` belongs to."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]

    def sha256(self) -> str:
        """Return the hash of what decides the weights, not of where the data lie."""
        plain = _ADAPTER.dump_python(self, mode="json")
        for place in ("train", "val", "patient_id_regex"):
            plain["data"].pop(place, None)
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
    plain = load_yaml_mapping(path)
    for override in overrides:
        _override(plain, override)
    return validate(_ADAPTER, plain, path)


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
