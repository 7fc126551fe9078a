"""Degrade, restore by every method, score."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch

from cxrsr_cli.judge.metrics import psnr, ssim
from cxrsr_cli.learn.images import GreyImage, read_image
from cxrsr_cli.learn.pairs import degrade
from cxrsr_cli.restore.consistency import project
from cxrsr_cli.restore.resample import downsample, upsample
from cxrsr_cli.restore.restorer import Restorer
from cxrsr_cli.write.atomic import replacing


class Method(StrEnum):
    """A way to enlarge."""

    BICUBIC = "bicubic"
    CONSISTENT_BICUBIC = "bicubic+consistent"
    """Range-aware consistent bicubic: the floor that a network must clear."""
    MODEL = "model"
    CONSISTENT_MODEL = "model+consistent"
    """What `upscale` does."""


@dataclass(frozen=True, slots=True)
class Score:
    """Quality of one method on one image.

    Attributes
    ----------
    psnr : float
        dB.
    ssim : float
        Within [-1, 1].
    inconsistency : float
        RMS in stored units of the downsampled output against the input.
    """

    psnr: float
    ssim: float
    inconsistency: float


@dataclass(frozen=True, slots=True)
class ImageScores:
    """Every method's score on one image.

    Attributes
    ----------
    name : str
        Of the image.
    scores : dict
        By method.
    """

    name: str
    scores: dict[Method, Score]


def evaluate_folder(paths: Iterable[Path], restorer: Restorer) -> Iterator[ImageScores]:
    """Score every method on every image.

    Parameters
    ----------
    paths : iterable of Path
        Grey images; cut to a multiple of the scale.
    restorer : Restorer
        The model; its own choice about consistency is ignored.

    Yields
    ------
    ImageScores
        For each image, on whole stored values.
    """
    scale = restorer.architecture.scale
    for path in paths:
        image = read_image(path, scale)
        low = degrade(image, scale)
        yield ImageScores(
            image.name,
            {
                method: _score(output.round_(), image, low, scale)
                for method, output in _outputs(low, image.maximum, restorer)
            },
        )


def _outputs(
    low: torch.Tensor, maximum: float, restorer: Restorer
) -> Iterator[tuple[Method, torch.Tensor]]:
    scale = restorer.architecture.scale
    bicubic = upsample(low, scale)
    estimate = restorer.estimate(low, minimum=0, maximum=maximum, consistent=False)
    yield Method.BICUBIC, bicubic.clamp(0, maximum)
    yield Method.CONSISTENT_BICUBIC, project(bicubic, low, scale, minimum=0, maximum=maximum)
    yield Method.MODEL, estimate.clamp(0, maximum)
    yield Method.CONSISTENT_MODEL, project(estimate, low, scale, minimum=0, maximum=maximum)


def _score(output: torch.Tensor, image: GreyImage, low: torch.Tensor, scale: int) -> Score:
    residual = downsample(output, scale) - low
    return Score(
        psnr=psnr(output, image.values, peak=image.maximum, border=scale),
        ssim=ssim(output, image.values, peak=image.maximum, border=scale),
        inconsistency=residual.square().mean().sqrt().item(),
    )


def write_csv(scores: Sequence[ImageScores], path: Path) -> None:
    """Write one line per image and method."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["image", "method", "psnr", "ssim", "inconsistency"])
        for image in scores:
            for method, score in image.scores.items():
                writer.writerow([image.name, method, score.psnr, score.ssim, score.inconsistency])
