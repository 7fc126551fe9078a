"""Read all that a training learns from and is judged on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrsr_cli.errors import InputError, NoInputError
from cxrsr_cli.images.image_files import GrayscaleImage, list_image_files, read_images
from cxrsr_cli.networks.config import ImageSkip
from cxrsr_cli.training.config import TrainConfig
from cxrsr_cli.training.patient_split import PatientSplit, check_no_patient_overlap
from cxrsr_cli.training.training_pairs import TrainingPair, make_degraded_pair, make_pair


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file that is not learned from.

    Attributes
    ----------
    name : str
        Of the file.
    reason : str
        Free of patient data.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class DataSummary:
    """What was found; what a user should know of it.

    Attributes
    ----------
    train, val : int
        Images in use.
    split : Split
        What is known of the patients.
    refused : tuple of Refused
        Files that are left out.
    """

    train: int
    val: int
    split: PatientSplit
    skipped: tuple[SkippedFile, ...]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The images.

    Attributes
    ----------
    train, val : list of Pair
        To learn from and to be judged on.
    inventory : Inventory
        What became of the files.
    """

    train: list[TrainingPair]
    val: list[TrainingPair]
    inventory: DataSummary


def load_training_data(
    config: TrainConfig, prepared: Callable[[int, int], None] = lambda _done, _total: None
) -> TrainingData:
    """Read and degrade the images of a configuration.

    Parameters
    ----------
    config : TrainConfig
        Whose `data`.
    prepared : callable
        Told ``(done, total)`` files.

    Returns
    -------
    Collection
        The images.

    Raises
    ------
    NothingToDoError
        If one of both has no image that can be used.
    ConfigError
        As `check_no_patient_overlap` and `list_image_files`.
    """
    places = (config.data.train, config.data.val)
    train, val = (list_image_files(place) for place in places)
    split = check_no_patient_overlap(train, val, config.data.patient_id_regex)
    done, refused = 0, list[SkippedFile]()

    def read(
        paths: Sequence[Path], make: Callable[[GrayscaleImage, int], TrainingPair]
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
                refused.append(SkippedFile(path.name, str(error)))
            done += 1
            prepared(done, len(train) + len(val))
        return pairs

    learned, judged = read(train, _for_training(config)), read(val, _for_validation(config))
    for pairs, place in zip((learned, judged), places, strict=True):
        if not pairs:
            raise NoInputError(f"no image of {place} can be used: {refused[-1].reason}")
    inventory = DataSummary(len(learned), len(judged), split, tuple(refused))
    return TrainingData(learned, judged, inventory)


def _for_training(config: TrainConfig) -> Callable[[GrayscaleImage, int], TrainingPair]:
    architecture = config.architecture
    filtered = architecture.impulse_filter
    # What is degraded anew for every patch gets its skip then.
    anew = config.degradation.is_active
    kind = ImageSkip.NONE if anew else architecture.image_skip
    return lambda image, _: make_pair(image, architecture.scale, kind, impulse_filter=filtered)


def _for_validation(config: TrainConfig) -> Callable[[GrayscaleImage, int], TrainingPair]:
    scale, kind = config.architecture.scale, config.architecture.image_skip
    filtered = config.architecture.impulse_filter
    if not config.degradation.is_active:
        return lambda image, _: make_pair(image, scale, kind, impulse_filter=filtered)
    # The same damage at every validation, whatever the training's seed.
    return lambda image, index: make_degraded_pair(
        image, scale, kind, config.degradation, index, impulse_filter=filtered
    )


def _check_size(image: GrayscaleImage, config: TrainConfig) -> None:
    needed = max(stage.patch_size for stage in config.stages) * config.architecture.scale
    if min(image.values.shape[-2:]) < needed:
        raise InputError(f"smaller than a patch of {needed} pixels")
