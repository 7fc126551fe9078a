"""Read the images of a training, check their patients, and make training pairs."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import pydicom
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.errors import ConfigError, InputError, NoInputError
from cxrsr_cli.images.image_files import GrayscaleImage, is_picture, list_image_files, read_images
from cxrsr_cli.images.marks import mark_mask
from cxrsr_cli.inference.assemble import image_skip
from cxrsr_cli.inference.impulse_filter import remove_impulses
from cxrsr_cli.inference.normalisation import Normalisation
from cxrsr_cli.networks.config import DEFAULT_NOISE_SHARE, ImageSkip
from cxrsr_cli.networks.resampling import upsample
from cxrsr_cli.training.config import TrainConfig
from cxrsr_cli.training.degradation import DegradationConfig, degrade_patch

_PATIENT_TAGS = ["PatientID", "IssuerOfPatientID"]


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """The input and the target of a network, in network values.

    Attributes
    ----------
    low, high : torch.Tensor
        ``(1, H, W)`` and ``(1, scale * H, scale * W)`` float32.
    skip : torch.Tensor or None
        The image skip, shape of `high`.
    minimum, maximum : float
        Legal range in network values.
    step : float
        Difference of two stored values that follow each other, as a share of
        the range.
    sigma : torch.Tensor
        ``(1, H, W)`` or ``(1, 1, 1)``: standard deviation of the input's noise and JPEG error.
    error : torch.Tensor
        ``(1, H, W)`` or ``(1, 1, 1)``: what noise, impulses, rounding and JPEG added to the input.
    noise_share : float
        Share of the input's noise that the target keeps.
    marks : torch.Tensor or None
        ``(H, W)`` float32: share of each low-resolution pixel that is a burnt-in mark.
    """

    low: torch.Tensor
    high: torch.Tensor
    skip: torch.Tensor | None
    minimum: float
    maximum: float
    step: float
    sigma: torch.Tensor = field(default_factory=lambda: torch.zeros(1, 1, 1))
    error: torch.Tensor = field(default_factory=lambda: torch.zeros(1, 1, 1))
    noise_share: float = 1.0
    marks: torch.Tensor | None = None

    def mark_share(self, top: int, left: int, side: int) -> float:
        """Return the share of a square of low-resolution pixels that is a mark."""
        if self.marks is None:
            return 0.0
        return float(self.marks[top : top + side, left : left + side].mean())


@dataclass(frozen=True, slots=True)
class PatientSplit:
    """Patients of training and validation.

    Attributes
    ----------
    train, val : int
        Number of patients in each.
    unknown : int
        Number of files of both without a patient ID.
    """

    train: int
    val: int
    unknown: int


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that is not used.

    Attributes
    ----------
    name : str
        Name of the file.
    reason : str
        Free of patient data.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class DataSummary:
    """What was found in the files.

    Attributes
    ----------
    train, val : int
        Number of images in use.
    split : PatientSplit
        Their patients.
    skipped : tuple of SkippedFile
        Files that are not used.
    """

    train: int
    val: int
    split: PatientSplit
    skipped: tuple[SkippedFile, ...]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The images of a training.

    Attributes
    ----------
    train, val : list of TrainingPair
        For training and for validation.
    summary : DataSummary
        What was found in the files.
    weights : list of float
        Probability of each pair for training.
    """

    train: list[TrainingPair]
    val: list[TrainingPair]
    summary: DataSummary
    weights: list[float]


def load_training_data(
    config: TrainConfig, on_image: Callable[[int, int], None] = lambda _done, _total: None
) -> TrainingData:
    """Read the images of a configuration and make their pairs.

    Parameters
    ----------
    config : TrainConfig
        Its `data` are read.
    on_image : callable
        Called with ``(done, total)`` after each file.

    Returns
    -------
    TrainingData
        The pairs.

    Raises
    ------
    NoInputError
        If training or validation has no usable image.
    ConfigError
        See `check_no_patient_overlap` and `list_image_files`.
    """
    train_paths, val_paths = (
        [list_image_files(source) for source in sources]
        for sources in (config.data.train_sources, config.data.val_sources)
    )
    split = check_no_patient_overlap(
        [*chain(*train_paths)], [*chain(*val_paths)], config.data.patient_id_regex
    )
    total = sum(map(len, train_paths + val_paths))
    done, skipped = 0, list[SkippedFile]()

    def read(
        source: Path,
        paths: Sequence[Path],
        make: Callable[[GrayscaleImage, int], TrainingPair],
    ) -> list[TrainingPair]:
        nonlocal done
        pairs = list[TrainingPair]()
        for path in paths:
            try:
                for image in read_images(
                    path, config.architecture.scale, frozenset(config.data.allow)
                ):
                    _check_size(image, config)
                    pairs.append(make(image, len(pairs)))
            except InputError as error:
                skipped.append(SkippedFile(path.name, str(error)))
            done += 1
            on_image(done, total)
        if not pairs:
            raise NoInputError(f"no image of {source} can be used: {skipped[-1].reason}")
        return pairs

    train_sets = [
        read(source, paths, _train_pair(config))
        for source, paths in zip(config.data.train_sources, train_paths, strict=True)
    ]
    val_sets = [
        read(source, paths, _val_pair(config))
        for source, paths in zip(config.data.val_sources, val_paths, strict=True)
    ]
    set_weights = config.data.weights or [float(len(pairs)) for pairs in train_sets]
    weights = [
        weight / len(pairs)
        for weight, pairs in zip(set_weights, train_sets, strict=True)
        for _ in pairs
    ]
    train, val = [*chain(*train_sets)], [*chain(*val_sets)]
    summary = DataSummary(len(train), len(val), split, tuple(skipped))
    return TrainingData(train, val, summary, weights)


def check_no_patient_overlap(
    train: Sequence[Path], val: Sequence[Path], pattern: str | None
) -> PatientSplit:
    """Check that no patient is in both training and validation.

    Patients are compared by hashes, which exist only during the call. No patient
    ID is returned, logged or part of an error.

    Parameters
    ----------
    train, val : sequence of Path
        Image files.
    pattern : str or None
        Regular expression that finds the patient ID in a file name: its first
        group, or the whole match. DICOM files also have a Patient ID.

    Returns
    -------
    PatientSplit
        Number of patients, and of files that could not be checked.

    Raises
    ------
    ConfigError
        If a patient or a file is in both, or if there is a `pattern` and a file
        has a patient ID neither in its name nor in its Patient ID.
    """
    in_both = {path.resolve() for path in train} & {path.resolve() for path in val}
    if in_both:
        raise ConfigError(f"data: {len(in_both)} files are in both train and val")
    train_keys, val_keys = (
        [patient_keys(path, pattern) for path in paths] for paths in (train, val)
    )
    unknown = sum(not keys for keys in (*train_keys, *val_keys))
    if pattern and unknown:
        raise ConfigError(
            f"data.patient_id_regex does not match the names of {unknown} files, "
            "which have no Patient ID either"
        )
    shared = frozenset().union(*train_keys) & frozenset().union(*val_keys)
    if shared:
        # A patient can have a key by name and a key by ID, but counts once.
        count = max(sum(kind == each for kind, _ in shared) for each in ("id", "name"))
        raise ConfigError(
            f"data: {count} patients are in both train and val; "
            "validation must not use patients of the training"
        )
    return PatientSplit(_count_patients(train_keys), _count_patients(val_keys), unknown)


def make_pair(
    image: GrayscaleImage, scale: int, skip_kind: ImageSkip, *, impulse_filter: bool = False
) -> TrainingPair:
    """Make the pair of an image and its downsampled version."""
    low = image.downsample(scale)
    return _pair(image, low, image.values, scale, skip_kind, impulse_filter=impulse_filter)


def make_degraded_pair(
    image: GrayscaleImage,
    scale: int,
    skip_kind: ImageSkip,
    degradation: DegradationConfig,
    seed: int,
    *,
    impulse_filter: bool = False,
    noise_share: float = 1.0,
) -> TrainingPair:
    """Make the pair of a whole image with the degradation that a `PatchSampler` applies."""
    share = (image.values[0] - image.minimum) / image.data_range
    if image.inverted:
        share = 1 - share
    degraded = degrade_patch(share, scale, degradation, step=1 / image.data_range, seed=seed)
    target = degraded.high + noise_share * upsample(degraded.noise[None], scale)[0]
    low, high = (
        (1 - side if image.inverted else side)[None] * image.data_range + image.minimum
        for side in (degraded.low, target.clamp(0, 1))
    )
    pair = _pair(image, low, high, scale, skip_kind, impulse_filter=impulse_filter)
    span = pair.maximum - pair.minimum
    return replace(pair, sigma=degraded.sigma * span, noise_share=noise_share)


def _pair(
    image: GrayscaleImage,
    low: torch.Tensor,
    high: torch.Tensor,
    scale: int,
    skip_kind: ImageSkip,
    *,
    impulse_filter: bool,
) -> TrainingPair:
    if impulse_filter:
        low = remove_impulses(low, image.pixel_range)
    skip = image_skip(skip_kind, low, scale)
    normalisation = Normalisation.from_image(low, inverted=image.inverted)
    limits = normalisation.to_network(torch.tensor([image.minimum, image.maximum]))
    return TrainingPair(
        low=normalisation.to_network(low)[0],
        high=normalisation.to_network(high)[0],
        skip=None if skip is None else normalisation.to_network(skip)[0],
        minimum=limits.min().item(),
        maximum=limits.max().item(),
        step=1 / image.data_range,
    )


def _train_pair(config: TrainConfig) -> Callable[[GrayscaleImage, int], TrainingPair]:
    network = config.architecture
    # With degradation, the sampler makes the skip of every patch.
    skip_kind = ImageSkip.NONE if config.degradation.is_active else network.image_skip

    def make(image: GrayscaleImage, _: int) -> TrainingPair:
        pair = make_pair(image, network.scale, skip_kind, impulse_filter=network.impulse_filter)
        marks = F.avg_pool2d(mark_mask(image.values, image.data_range).float(), network.scale)
        return replace(pair, marks=marks[0, 0])

    return make


def _val_pair(config: TrainConfig) -> Callable[[GrayscaleImage, int], TrainingPair]:
    if not config.degradation.is_active:
        return _train_pair(config)
    network = config.architecture
    # The index as the seed gives the same degradation in every validation and training.
    return lambda image, index: make_degraded_pair(
        image,
        network.scale,
        network.image_skip,
        config.degradation,
        index,
        impulse_filter=network.impulse_filter,
        noise_share=DEFAULT_NOISE_SHARE if network.noise_share else 1.0,
    )


def _check_size(image: GrayscaleImage, config: TrainConfig) -> None:
    min_side = max(stage.patch_size for stage in config.stages) * config.architecture.scale
    if min(image.values.shape[-2:]) < min_side:
        raise InputError(f"smaller than a patch of {min_side} pixels")


PatientKey = tuple[str, bytes]
"""Where a patient ID was found, and its SHA-256."""


def patient_keys(path: Path, pattern: str | None) -> frozenset[PatientKey]:
    """Return the keys of the patient of a file: by its Patient ID, and by its name.

    Parameters as of `check_no_patient_overlap`. Without a patient ID there is no key.
    """
    keys = set()
    match = re.search(pattern, path.name) if pattern else None
    if match:
        keys.add(("name", _hash(match.group(1 if match.re.groups else 0) or "")))
    if not is_picture(path) and (patient_id := _patient_id(path)):
        keys.add(("id", _hash(patient_id)))
    return frozenset(keys)


def _patient_id(path: Path) -> str | None:
    with quiet_libraries():
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_PATIENT_TAGS)
            patient_id = str(dataset.get("PatientID") or "").strip()
            issuer = str(dataset.get("IssuerOfPatientID") or "").strip()
        # A file that pydicom cannot read is skipped later, when its image is read.
        except Exception:
            return None
    return f"{issuer}\0{patient_id}" if patient_id else None


def _hash(patient_id: str) -> bytes:
    return hashlib.sha256(patient_id.encode()).digest()


def _count_patients(keys: Iterable[frozenset[PatientKey]]) -> int:
    # The smallest key is that of the ID, which is more reliable than the name.
    return len({min(of_file) for of_file in keys if of_file})
