"""Nobody is both learned from and judged on.

Patients are told apart by hashes that live as long as one call; nothing here
returns, logs or raises who somebody is.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.errors import ConfigError
from cxrsr_cli.images.image_files import is_picture

_TAGS = ["PatientID", "IssuerOfPatientID"]


@dataclass(frozen=True, slots=True)
class PatientSplit:
    """What is known of the patients of a training.

    Attributes
    ----------
    train, val : int
        How many patients were found in each.
    unknown : int
        Files, of both, that do not tell whose they are.
    """

    train: int
    val: int
    unknown: int


def check_no_patient_overlap(
    train: Sequence[Path], val: Sequence[Path], pattern: str | None
) -> PatientSplit:
    """Check that no patient is in both.

    Parameters
    ----------
    train, val : sequence of Path
        Image files.
    pattern : str or None
        Regular expression for the patient in a file's name: its first group,
        or all of its match. DICOM tells by Patient ID too.

    Returns
    -------
    Split
        How many patients there are, and how many files could not be checked.

    Raises
    ------
    ConfigError
        If a patient or a file is in both, or with a `pattern` a file tells
        neither by its name nor by its Patient ID whose it is.
    """
    twice = {path.resolve() for path in train} & {path.resolve() for path in val}
    if twice:
        raise ConfigError(f"data: {len(twice)} files are in both train and val")
    compiled = re.compile(pattern) if pattern else None
    keys = [[_keys(path, compiled) for path in paths] for paths in (train, val)]
    unknown = sum(not known for side in keys for known in side)
    if compiled and unknown:
        raise ConfigError(
            f"data.patient_id_regex does not match the names of {unknown} files, "
            "which do not tell by a Patient ID either whose they are"
        )
    shared = _union(keys[0]) & _union(keys[1])
    # A file that tells by both its name and its ID must not count twice.
    kinds = [sum(kind == which for kind, _ in shared) for which in ("id", "name")]
    if shared:
        raise ConfigError(
            f"data: {max(kinds)} patients are in both train and val; "
            "a network must not be judged on patients that it learned from"
        )
    return PatientSplit(_count(keys[0]), _count(keys[1]), unknown)


_Key = tuple[str, bytes]


def _keys(path: Path, pattern: re.Pattern[str] | None) -> frozenset[_Key]:
    found = set()
    match = pattern.search(path.name) if pattern else None
    if match:
        found.add(("name", _hash(match.group(1 if match.re.groups else 0) or "")))
    if not is_picture(path) and (identity := _patient_id(path)):
        found.add(("id", _hash(identity)))
    return frozenset(found)


def _patient_id(path: Path) -> str | None:
    with quiet_libraries():
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            identity = str(dataset.get("PatientID") or "").strip()
            issuer = str(dataset.get("IssuerOfPatientID") or "").strip()
        # What makes pydicom raise anything is refused when the image is read.
        except Exception:
            return None
    return f"{issuer}\0{identity}" if identity else None


def _hash(identity: str) -> bytes:
    return hashlib.sha256(identity.encode()).digest()


def _union(keys: Iterable[frozenset[_Key]]) -> frozenset[_Key]:
    return frozenset().union(*keys)


def _count(keys: Iterable[frozenset[_Key]]) -> int:
    # By its ID where a file has one, which is surer than its name.
    return len({min(known) for known in keys if known})
