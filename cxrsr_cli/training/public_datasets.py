"""Public collections of chest radiographs, and the check of a local copy."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import TypeAdapter

from cxrsr_cli.errors import InputError, NoInputError, UsageError

_FILE = Path(__file__).with_name("public_datasets.yaml")

PAPER = (
    "CXR1, CXR2 and CXR3 of J. Imaging 2024, 10(3), 64 are not identified: "
    "the paper does not say which collections they are."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicDataset:
    """Facts about a collection.

    Attributes
    ----------
    name, title : str
        Name for the command line, and full name.
    source : str
        Where it can be downloaded.
    terms : str
        Terms of use as the source states them; "see the source" where unknown.
    citation : str
        Publication to cite.
    images : tuple of str
        Globs of the images, relative to the folder of a copy.
    exclude : tuple of str
        Globs of files among them that are not radiographs.
    count : int or None
        Number of images in a complete copy; None if the source does not state it.
    bits : int or None
        Bit depth; None if it varies.
    patient_id_regex : str or None
        For `DataConfig`.
    split : str
        Official split into training and validation.
    remarks : str
        Known problems for training.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    name: str
    title: str
    source: str
    terms: str
    citation: str
    images: tuple[str, ...]
    count: int | None
    bits: int | None
    patient_id_regex: str | None
    split: str
    remarks: str
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LocalCopyCheck:
    """Result of the check of a local copy.

    Attributes
    ----------
    found : int
        Number of images that match the globs.
    unexpected_files : int
        Number of images that do not match.
    readable : int
        Number of images in the sample that can be read.
    refused : tuple of str
        ``name: reason`` of images in the sample that a training would skip.
    bits : tuple of int
        Bit depths in the sample, ascending.
    files_without_patient : int
        Number of files without a patient ID in the name, although the
        collection has them.
    patients : int
        Number of patients by name; 0 if the names have no patient ID.
    """

    found: int
    unexpected_files: int
    readable: int
    refused: tuple[str, ...]
    bits: tuple[int, ...]
    files_without_patient: int
    patients: int

    def problems(self, dataset: PublicDataset) -> list[str]:
        """Describe the differences to a complete copy."""
        checks = [
            (
                dataset.count is not None and self.found != dataset.count,
                f"{self.found} images, a complete copy has {dataset.count}",
            ),
            (self.unexpected_files, f"{self.unexpected_files} images in unexpected folders"),
            (self.refused, f"a training would skip {len(self.refused)} images of the sample"),
            (
                self.files_without_patient,
                f"{self.files_without_patient} names have no patient ID",
            ),
            (
                dataset.bits is not None and self.bits and self.bits != (dataset.bits,),
                f"the depth is {', '.join(map(str, self.bits))} bits, not {dataset.bits}",
            ),
        ]
        return [text for is_wrong, text in checks if is_wrong]


@cache
def known_datasets() -> tuple[PublicDataset, ...]:
    """Read the list of collections."""
    plain = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return TypeAdapter(tuple[PublicDataset, ...]).validate_python(plain)


def find_dataset(name: str) -> PublicDataset:
    """Find a collection by its name.

    Raises
    ------
    UsageError
        If the name is unknown.
    """
    for dataset in known_datasets():
        if dataset.name == name:
            return dataset
    known = ", ".join(dataset.name for dataset in known_datasets())
    raise UsageError(f"no dataset '{name}'; known: {known}")


def check_local_copy(dataset: PublicDataset, folder: Path, sample: int = 20) -> LocalCopyCheck:
    """Check a local copy: folders, names, and a sample of its images.

    Parameters
    ----------
    dataset : PublicDataset
        The collection.
    folder : Path
        Folder of the copy.
    sample : int
        Number of images to read, evenly spread.

    Returns
    -------
    LocalCopyCheck
        The result.

    Raises
    ------
    NoInputError
        If no image matches the globs.
    """
    excluded = set(_matches(folder, dataset.exclude))
    paths = sorted(set(_matches(folder, dataset.images)) - excluded)
    if not paths:
        raise NoInputError(
            f"no image of {dataset.name} below {folder}: none matches {', '.join(dataset.images)}"
        )
    all_images = {path for path in folder.rglob("*") if path.suffix.lower() in _suffixes(dataset)}
    patients = _patients(paths, dataset.patient_id_regex)
    readable, refused, bits = _read(paths[:: max(1, len(paths) // sample)][:sample])
    return LocalCopyCheck(
        found=len(paths),
        unexpected_files=len(all_images - set(paths) - excluded),
        readable=readable,
        refused=tuple(refused),
        bits=tuple(sorted(bits)),
        files_without_patient=patients.pop(None, 0),
        patients=len(patients),
    )


def _matches(folder: Path, globs: Iterable[str]) -> Iterable[Path]:
    return (path for pattern in globs for path in folder.glob(pattern) if path.is_file())


def _suffixes(dataset: PublicDataset) -> set[str]:
    return {Path(pattern).suffix.lower() for pattern in dataset.images}


def _patients(paths: Iterable[Path], pattern: str | None) -> Counter[str | None]:
    if pattern is None:
        return Counter()
    matches = (re.search(pattern, path.name) for path in paths)
    return Counter(match.group(1) if match else None for match in matches)


def _read(paths: Iterable[Path]) -> tuple[int, list[str], set[int]]:
    # The list of collections must not wait for torch.
    from cxrsr_cli.images.image_files import read_images

    readable, refused, bits = 0, list[str](), set[int]()
    for path in paths:
        try:
            image = read_images(path, 1)[0]
        except InputError as error:
            refused.append(f"{path.name}: {error}")
            continue
        readable += 1
        # A picture of 16 bits can have fewer significant bits, which its values show.
        extent = image.maximum - image.minimum
        largest = image.values.max().item() if extent == 0xFFFF else extent
        bits.add(max(8, int(largest).bit_length()))
    return readable, refused, bits
