"""The training configuration: reads YAML into checked dataclasses."""

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
from cxrsr_cli.networks.config import Agreement, NetworkConfig, Precision
from cxrsr_cli.networks.registry import DEFAULT_FAMILY, FAMILY_KEY, config_class
from cxrsr_cli.training.degradation import DegradationConfig

LOSS_BORDER = 2
"""Low-resolution pixels at the edge of a patch that the loss leaves out: their neighbours in
the whole image are not part of the patch."""

_FORBID: dict[str, Any] = {"extra": "forbid"}


def _validate_network(plain: object) -> NetworkConfig:
    if isinstance(plain, NetworkConfig):
        return plain
    if not isinstance(plain, dict):
        raise ValueError("architecture must be a mapping of keys to values")
    fields = dict(plain)
    family = config_class(fields.pop(FAMILY_KEY, DEFAULT_FAMILY))
    return TypeAdapter(family).validate_python(fields)


AnyNetworkConfig = Annotated[
    NetworkConfig,
    PlainValidator(_validate_network),
    # Pydantic would leave out the class variable `network`.
    PlainSerializer(NetworkConfig.to_dict),
]
"""Configuration of the family that the key ``network`` names."""


class Schedule(StrEnum):
    """How the learning rate decreases."""

    COSINE = "cosine"
    """To zero over the whole training."""
    STEP = "step"
    """By `decay_factor` every `decay_steps`, as in the paper."""


class Loss(StrEnum):
    """Loss of the pixels."""

    L1 = "l1"
    """Mean absolute difference, as in the paper."""
    MSE = "mse"
    """Mean squared difference, which maximises PSNR."""
    RELATIVE_L1 = "relative_l1"
    """Each patch's mean absolute difference, divided by that of bicubic interpolation. Images
    that are hard to upscale count as much as easy ones."""
    RELATIVE_MSE = "relative_mse"
    """The same of squared differences: the best guess is then the mean of what is likely, not one
    of several sharp pictures."""


class Optimizer(StrEnum):
    """Optimiser."""

    ADAM = "adam"
    ADAMW = "adamw"
    """Adam with decoupled weight decay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """The images. No patient may be in both training and validation.

    Attributes
    ----------
    train, val : Path or tuple of Path
        Folders, read recursively, or text files with one path per line,
        relative to the text file. Grayscale PNG, TIFF and JPEG of 8 or 16 bits,
        and DICOM at its full depth.
    weights : tuple of float or None
        Share of the patches that comes from each of several `train`. None for equal
        probabilities of all images.
    description : str
        Name, source and licence of the data, for the model card.
    patient_id_regex : str or None
        Regular expression that finds the patient ID in a file name: its first
        group, or the whole match. DICOM files also have a Patient ID.
    allow : tuple of AcceptanceOverride
        Kinds of DICOM images that are accepted in addition to chest radiographs
        for presentation.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    train: Path | tuple[Path, ...]
    val: Path | tuple[Path, ...]
    description: str
    weights: tuple[float, ...] | None = None
    patient_id_regex: str | None = None
    allow: tuple[AcceptanceOverride, ...] = ()

    def __post_init__(self) -> None:
        try:
            re.compile(self.patient_id_regex or "")
        except re.error as error:
            raise ValueError(f"patient_id_regex is not a regular expression: {error}") from error
        if self.weights and (
            len(self.weights) != len(self.train_sources) or min(self.weights) <= 0
        ):
            raise ValueError("weights must be above 0, one for each of train")

    @property
    def train_sources(self) -> tuple[Path, ...]:
        """Folders or lists for training."""
        return self.train if isinstance(self.train, tuple) else (self.train,)

    @property
    def val_sources(self) -> tuple[Path, ...]:
        """Folders or lists for validation."""
        return self.val if isinstance(self.val, tuple) else (self.val,)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageConfig:
    """A number of steps with one batch size and one patch size.

    Attributes
    ----------
    steps : int
        Number of optimiser steps.
    batch_size : int
        Number of patches in a step.
    patch_size : int
        Height and width of a patch in low-resolution pixels.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    steps: int
    batch_size: int
    patch_size: int

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.patch_size) < 1:
            raise ValueError("steps, batch_size and patch_size must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """All choices of a training.

    Attributes
    ----------
    name : str
        Name of the model, without its scale.
    architecture : NetworkConfig
        The network.
    data : DataConfig
        The images.
    stages : tuple of StageConfig
        Batch and patch sizes in the order of the training.
    learning_rate : float
        Largest learning rate.
    adam_betas : tuple of float
        Coefficients of Adam.
    optimizer : Optimizer
        Adam, or AdamW with `weight_decay`.
    weight_decay : float
        Coefficient of AdamW.
    loss : Loss
        Loss of the pixels.
    fft_loss_weight : float
        Weight of the L1 loss of the Fourier transforms, which is added to
        `loss`.
    precision : Precision
        ``fp32``, or ``bf16`` for convolutions in bfloat16 on a GPU. A CPU always
        uses float32, because bfloat16 is slower there.
    warmup_steps : int
        Steps in which the learning rate rises linearly.
    schedule : Schedule
        Decrease of the learning rate.
    decay_steps, decay_factor
        For `Schedule.STEP`.
    max_grad_norm : float
        Gradients are clipped to this norm.
    ema_decay : float
        Decay of the averaged weights, which are validated and exported.
    agreement : Agreement
        Agreement that is enforced between the network and the loss, with the standard
        deviation of the noise and JPEG error that were added; by default also of outputs.
    degradation : DegradationConfig
        Degradation of the input that the network learns to undo.
    init_from : Path or None
        Weights to start from (`cxrsr_cli.training.warm_start`).
    seed : int
        Seed of the initial weights and of sampling.
    val_every, checkpoint_every : int
        Steps between two validations and between two checkpoints.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    name: str
    architecture: AnyNetworkConfig
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
    agreement: Agreement = Agreement.NOISE
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
        min_patch_size = 2 * LOSS_BORDER + 1
        if min(stage.patch_size for stage in self.stages) < min_patch_size:
            raise ValueError(
                f"stages: patch_size must be at least {min_patch_size}, "
                "because the loss leaves out the border"
            )
        if min(self.val_every, self.checkpoint_every, self.decay_steps) < 1:
            raise ValueError("val_every, checkpoint_every and decay_steps must be at least 1")
        if not 0 <= self.ema_decay < 1:
            raise ValueError("ema_decay must be within [0, 1)")
        if self.warmup_steps < 0:
            raise ValueError("warmup_steps must not be negative")
        if self.learning_rate <= 0:
            raise ValueError("learning_rate must be above 0")
        if min(self.weight_decay, self.fft_loss_weight) < 0:
            raise ValueError("weight_decay and fft_loss_weight must not be negative")
        if self.weight_decay and self.optimizer is not Optimizer.ADAMW:
            raise ValueError("weight_decay needs optimizer: adamw")
        if self.precision not in (Precision.FP32, Precision.BF16):
            raise ValueError("precision must be fp32 or bf16")
        if self.agreement is not Agreement.NONE and self.degradation.has_impulses:
            raise ValueError(
                "agreement must be none: it would bring back the impulses of the input"
            )

    @property
    def total_steps(self) -> int:
        """Number of steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> StageConfig:
        """Return the stage of 0-based `step`."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]

    def sha256(self) -> str:
        """Return the hash of all fields that influence the weights, not of the data's paths."""
        plain = _ADAPTER.dump_python(self, mode="json")
        for name in ("train", "val", "patient_id_regex"):
            plain["data"].pop(name, None)
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


_ADAPTER = TypeAdapter(TrainConfig)


def load_train_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read and check a configuration.

    Parameters
    ----------
    path : Path
        YAML file.
    overrides : sequence of str
        ``section.key=value`` with the value in YAML.

    Returns
    -------
    TrainConfig
        The checked configuration.

    Raises
    ------
    ConfigError
        If the file cannot be read, a key is unknown, or a value is illegal.
    """
    plain = load_yaml_mapping(path)
    for override in overrides:
        _override(plain, override)
    return validate(_ADAPTER, plain, path)


def _override(plain: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"'{override}' does not have the form key=value")
    *parents, key = dotted.split(".")
    node = plain
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"'{dotted}' is not a key: {parent} has a single value")
    try:
        node[key] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of '{dotted}' is not YAML") from error
