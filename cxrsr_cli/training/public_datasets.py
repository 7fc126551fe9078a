"""Public collections of radiographs: facts about them, and a look at a local copy."""

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
    """What is known of a collection.

    Attributes
    ----------
    name, title : str
        For the command and for people.
    source : str
        Where to get it.
    terms : str
        What the source says of its use; "see the source" where that is not known here.
    citation : str
        Whom to credit.
    images : tuple of str
        Globs below the folder of a copy.
    exclude : tuple of str
        Globs of what is no radiograph among them.
    count : int or None
        Images in a whole copy, where one number is stated.
    bits : int or None
        Depth; None if it differs.
    patient_id_regex : str or None
        For `DataConfig`.
    split : str
        How training and validation are told apart.
    remarks : str
        What to know before learning from it.
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
    """What a look at a local copy found.

    Attributes
    ----------
    found : int
        Files that lie where images should.
    strangers : int
        Images that lie elsewhere.
    readable : int
        Images read as a sample.
    refused : tuple of str
        ``name: reason`` of those of the sample that would be left out.
    bits : tuple of int
        Depths of the sample, ascending.
    nameless : int
        Files whose name does not tell the patient, though it should.
    patients : int
        Different patients by name; 0 if names do not tell.
    """

    found: int
    unexpected_files: int
    readable: int
    refused: tuple[str, ...]
    bits: tuple[int, ...]
    files_without_patient: int
    patients: int

    def problems(self, dataset: PublicDataset) -> list[str]:
        """Say what is not as it should be."""
        checks = [
            (
                dataset.count is not None and self.found != dataset.count,
                f"{self.found} images, a whole copy has {dataset.count}",
            ),
            (self.unexpected_files, f"{self.unexpected_files} images lie where none should"),
            (self.refused, f"{len(self.refused)} of the sample would be left out"),
            (
                self.files_without_patient,
                f"{self.files_without_patient} names do not tell the patient",
            ),
            (
                dataset.bits is not None and self.bits and self.bits != (dataset.bits,),
                f"depth is {', '.join(map(str, self.bits))} bits, not {dataset.bits}",
            ),
        ]
        return [text for wrong, text in checks if wrong]


@cache
def known_datasets() -> tuple[PublicDataset, ...]:
    """Read the registry."""
    plain = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return TypeAdapter(tuple[PublicDataset, ...]).validate_python(plain)


def find_dataset(name: str) -> PublicDataset:
    """Find one by its name.

    Raises
    ------
    UsageError
        If there is none.
    """
    for dataset in known_datasets():
        if dataset.name == name:
            return dataset
    known = ", ".join(dataset.name for dataset in known_datasets())
    raise UsageError(f"no dataset '{name}'; known: {known}")


def check_local_copy(dataset: PublicDataset, folder: Path, sample: int = 20) -> LocalCopyCheck:
    """Look at a local copy: layout, names, and a sample of its images.

    Parameters
    ----------
    dataset : Dataset
        What it should be.
    folder : Path
        Of the copy.
    sample : int
        Images that are read, evenly spread.

    Returns
    -------
    Copy
        What was found.

    Raises
    ------
    NothingToDoError
        If no image lies where one should.
    """
    excluded = set(_matches(folder, dataset.exclude))
    paths = sorted(set(_matches(folder, dataset.images)) - excluded)
    if not paths:
        raise NoInputError(
            f"no image of {dataset.name} below {folder}: none matches {', '.join(dataset.images)}"
        )
    everything = {path for path in folder.rglob("*") if path.suffix.lower() in _suffixes(dataset)}
    patients = _patients(paths, dataset.patient_id_regex)
    readable, refused, bits = _read(paths[:: max(1, len(paths) // sample)][:sample])
    return LocalCopyCheck(
        found=len(paths),
        unexpected_files=len(everything - set(paths) - excluded),
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
    # Listing what is known must not wait for torch.
    from cxrsr_cli.images.image_files import read_images

    readable, refused, bits = 0, list[str](), set[int]()
    for path in paths:
        try:
            image = read_images(path, 1)[0]
        except InputError as error:
            refused.append(f"{path.name}: {error}")
            continue
        readable += 1
        # What pictures of 16 bits really hold shows in their values.
        extent = image.maximum - image.minimum
        largest = image.values.max().item() if extent == 0xFFFF else extent
        bits.add(max(8, int(largest).bit_length()))
    return readable, refused, bits
