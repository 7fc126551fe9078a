"""Crops of training images, chosen for what they show, as small losslessly compressed files."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from math import ceil, log2
from pathlib import Path

import numpy as np
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, JPEGLSLossless

from cxrsr_cli.errors import InputError
from cxrsr_cli.images.image_files import GrayscaleImage, list_image_files, read_images
from cxrsr_cli.training.config import DataConfig
from cxrsr_cli.training.training_data import check_no_patient_overlap, patient_keys

_POOL = 4
"""Side in pixels of the blocks whose means are looked at. Noise is small in such means."""
_MAX_DETAIL = 0.02
"""Share of the range from which more contrast does not count more, so that letters do not win."""
_END_OF_RANGE = 0.005
"""Share of the range at both ends that is a border, a shutter or a mark."""
_VALIDATION_SHARE = 0.1
"""Share of the bytes for validation."""


@dataclass(frozen=True, slots=True)
class Crop:
    """A crop of an image.

    Attributes
    ----------
    name : str
        Name of its file: split, number of the source of its image, and a number, but not the name
        of its image.
    rank : int
        0 for the best crop of its image, 1 for the next.
    score : float
        How much it shows.
    content : bytes
        A DICOM file in JPEG-LS lossless, with the depth and the polarity of the image. A hash
        stands for the patient.
    """

    name: str
    rank: int
    score: float
    content: bytes


def choose_crops(data: DataConfig, side: int, max_bytes: int) -> list[Crop]:
    """Choose crops of all images of a configuration: the best of each, then the next of each.

    Parameters
    ----------
    data : DataConfig
        Its images are read at full depth.
    side : int
        Height and width in pixels.
    max_bytes : int
        Limit of all files together.

    Returns
    -------
    list of Crop
        For training and validation.

    Raises
    ------
    InputError
        If not even one crop for each of both fits.
    ConfigError
        If a patient is in both training and validation.
    """
    sources = {
        split: [list_image_files(source) for source in list_sources(paths)]
        for split, paths in (("train", data.train), ("val", data.val))
    }
    train, val = (list(chain.from_iterable(sources[split])) for split in ("train", "val"))
    check_no_patient_overlap(train, val, data.patient_id_regex)
    chosen = list[Crop]()
    for split in ("val", "train"):
        share = _VALIDATION_SHARE if split == "val" else 1.0
        allowed = share * (max_bytes - sum(len(crop.content) for crop in chosen))
        crops = sorted(
            _crops(split, sources[split], data, side), key=lambda crop: (crop.rank, -crop.score)
        )
        count = len(chosen)
        for crop in crops:
            allowed -= len(crop.content)
            if allowed < 0:
                break
            chosen.append(crop)
        if len(chosen) == count:
            raise InputError(
                f"no crop of {side} pixels for {split} fits into the size that is left"
            )
    return chosen


def list_sources(paths: Path | tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the one or more sources of a configuration's images."""
    return paths if isinstance(paths, tuple) else (paths,)


def _crops(split: str, sources: list[list[Path]], data: DataConfig, side: int) -> Iterator[Crop]:
    for source, paths in enumerate(sources):
        number = 0
        for path in paths:
            key = min(patient_keys(path, data.patient_id_regex), default=("", b""))
            try:
                images = read_images(path, 1, frozenset(data.allow))
            except InputError:
                continue  # `cxrsr train` names and skips it too
            for image in images:
                for rank, (score, top, left) in enumerate(find_crops(image, side)):
                    content = encode_crop(image, top, left, side, key[1].hex()[:16])
                    yield Crop(f"{split}/{source}/{number:05}.dcm", rank, score, content)
                    number += 1


def find_crops(image: GrayscaleImage, side: int) -> list[tuple[float, int, int]]:
    """Find crops that do not overlap.

    Parameters
    ----------
    image : GrayscaleImage
        The image.
    side : int
        Height and width of a crop in pixels.

    Returns
    -------
    list of tuple
        Score, top and left, from the largest score on. The score is the mean contrast of block
        means to their neighbours, bounded, where the values are not at an end of the range.
    """
    if min(image.values.shape[-2:]) < side:
        return []
    share = (image.values - image.minimum) / image.data_range
    blocks = F.avg_pool2d(share, _POOL)
    surroundings = F.avg_pool2d(blocks, 5, stride=1, padding=2, count_include_pad=False)
    detail = (blocks - surroundings).abs().clamp_(max=_MAX_DETAIL)
    detail[(blocks < _END_OF_RANGE) | (blocks > 1 - _END_OF_RANGE)] = 0
    window = max(1, side // _POOL)
    step = max(1, window // 4)
    scores = F.avg_pool2d(detail, window, stride=step)[0, 0].double()
    reach = ceil(window / step) - 1
    found = list[tuple[float, int, int]]()
    while (score := scores.max().item()) >= 0:
        row, column = divmod(int(scores.argmax()), scores.shape[1])
        found.append((score, row * step * _POOL, column * step * _POOL))
        scores[
            max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1
        ] = -1
    return found


def encode_crop(image: GrayscaleImage, top: int, left: int, side: int, patient: str) -> bytes:
    """Return a crop as a DICOM file, which says nothing of the image but its values."""
    cropped = image.values[0, 0, top : top + side, left : left + side] - image.minimum
    bits = max(8, ceil(log2(image.data_range + 1)))
    cells = cropped.numpy().astype(np.uint8 if bits == 8 else np.uint16)
    dataset = Dataset()
    digest = hashlib.sha256(patient.encode() + cells.tobytes()).digest()
    dataset.SOPInstanceUID = UID(f"2.25.{int.from_bytes(digest[:15])}")
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.Modality, dataset.BodyPartExamined = "DX", "CHEST"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.PatientID = patient
    dataset.PhotometricInterpretation = "MONOCHROME1" if image.inverted else "MONOCHROME2"
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.Rows = dataset.Columns = side
    dataset.BitsAllocated = 8 * cells.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.file_meta = FileMetaDataset()
    dataset.compress(JPEGLSLossless, cells, generate_instance_uid=False)
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
