"""Degrade, restore by every method, score."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch

from cxrsr_cli.errors import InputError, ModelError
from cxrsr_cli.evaluation.methods import Method
from cxrsr_cli.evaluation.noise import Noise
from cxrsr_cli.evaluation.resource_usage import NetworkComplexity, ResourceUsage, measure_usage
from cxrsr_cli.evaluation.scores import Score, score
from cxrsr_cli.images.image_files import GrayscaleImage, is_picture, read_images
from cxrsr_cli.inference.data_consistency import project_iteratively
from cxrsr_cli.inference.impulse_filter import remove_impulses
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.networks.resampling import upsample
from cxrsr_cli.training import training_pairs


@dataclass(frozen=True, slots=True)
class ImageScores:
    """Every method's score on one image.

    Attributes
    ----------
    name : str
        Of the image.
    height, width : int
        Of the original, in pixels.
    minimum, maximum : float
        Legal range of its stored values.
    scores : dict
        By method.
    usages : dict
        What each method took, by method; the metrics are not in it.
    """

    name: str
    height: int
    width: int
    minimum: float
    maximum: float
    scores: dict[Method, Score]
    usages: dict[Method, ResourceUsage]

    @property
    def megapixels(self) -> float:
        """Millions of pixels of the output."""
        return self.height * self.width / 1e6


@dataclass(frozen=True, slots=True)
class MethodOutput:
    """What a method made.

    Attributes
    ----------
    values : torch.Tensor
        ``(1, 1, H, W)`` float32, whole stored values within the legal range.
    usage : Usage
        What it took.
    """

    values: torch.Tensor
    usage: ResourceUsage


@dataclass(frozen=True, slots=True)
class Evaluator:
    """The methods at one scale, loaded.

    Attributes
    ----------
    scale : int
        Factor.
    methods : sequence of Method
        In the order of the tables.
    restorers : mapping
        The network of every base that is a model.
    noise : Noise or None
        On the low-resolution input.
    """

    scale: int
    methods: Sequence[Method]
    predictors: Mapping[str, Predictor]
    noise: Noise | None = None

    @classmethod
    def load(
        cls,
        scale: int,
        methods: Sequence[Method],
        models: Mapping[str, Path],
        *,
        device: str = "auto",
        memory: int | None = None,
        noise: Noise | None = None,
    ) -> Self:
        """Load the networks.

        Parameters
        ----------
        scale, methods, noise
            As the attributes.
        models : mapping
            The weights file of every base that is a model.
        device, memory
            As in `Predictor.load`.

        Raises
        ------
        ModelError, DeviceError
            As `Predictor.load`.
        """
        restorers = {
            base: Predictor.load(path, device=device, memory=memory)
            for base, path in models.items()
        }
        return cls(scale, methods, restorers, noise)

    @property
    def device(self) -> str:
        """Where the networks run."""
        found = dict.fromkeys(str(restorer.device) for restorer in self.predictors.values())
        return ", ".join(found) or "cpu"

    def evaluate(self, paths: Iterable[Path]) -> Iterator[ImageScores]:
        """Score every method on every image.

        Parameters
        ----------
        paths : iterable of Path
            Originals; cut to a multiple of the scale.

        Yields
        ------
        ImageScores
            For each image, on whole stored values.

        Raises
        ------
        InputError
            As `read_ground_truth`.
        ModelError
            As `outputs`.
        """
        for path in paths:
            original = read_ground_truth(path, self.scale)
            low = make_low_resolution(original, self.scale, self.noise)
            scores, usages = dict[Method, Score](), dict[Method, ResourceUsage]()
            for method, output in self.outputs(original, low):
                scores[method] = score(output.values, original, low, self.scale)
                usages[method] = output.usage
            height, width = original.values.shape[-2:]
            yield ImageScores(
                name=original.name,
                height=height,
                width=width,
                minimum=original.minimum,
                maximum=original.maximum,
                scores={method: scores[method] for method in self.methods},
                usages={method: usages[method] for method in self.methods},
            )

    def outputs(
        self, original: GrayscaleImage, low: torch.Tensor
    ) -> Iterator[tuple[Method, MethodOutput]]:
        """Restore an image by every method.

        Parameters
        ----------
        original : GreyImage
            Gives the legal range and the polarity; its pixels are not looked at.
        low : torch.Tensor
            ``(1, 1, h, w)`` float32 stored values.

        Yields
        ------
        tuple of Method and Output
            Methods that share an estimate one after the other: it is made once.

        Raises
        ------
        ModelError
            If a network makes values that are not finite.
        """
        minimum, maximum = original.minimum, original.maximum
        for plain in dict.fromkeys(replace(method, consistent=False) for method in self.methods):
            device = self._device(plain)
            with measure_usage(device) as making:
                seen = low
                if plain.filtered:
                    seen = remove_impulses(low, minimum=minimum, maximum=maximum)
                estimate = self._estimate(plain, original, seen)
            if plain in self.methods:
                with measure_usage(device) as clipping:
                    values = estimate.clamp(minimum, maximum).round_()
                yield plain, MethodOutput(values, making.combined_with(clipping))
            consistent = replace(plain, consistent=True)
            if consistent in self.methods:
                with measure_usage(device) as projecting:
                    values = project_iteratively(
                        estimate, seen, self.scale, minimum=minimum, maximum=maximum
                    )
                    values.round_()
                yield consistent, MethodOutput(values, making.combined_with(projecting))

    def complexity(self, method: Method) -> NetworkComplexity:
        """Count a method's parameters and operations."""
        if not method.is_model:
            return NetworkComplexity()
        return NetworkComplexity.of(self.predictors[method.base], ensemble=method.ensemble)

    def _device(self, method: Method) -> torch.device:
        return self.predictors[method.base].device if method.is_model else torch.device("cpu")

    def _estimate(
        self, method: Method, original: GrayscaleImage, low: torch.Tensor
    ) -> torch.Tensor:
        if not method.is_model:
            return upsample(low, self.scale)
        estimate = replace(self.predictors[method.base], self_ensemble=method.ensemble).predict(
            low,
            minimum=original.minimum,
            maximum=original.maximum,
            inverted=original.inverted,
            consistent=False,
        )
        if not estimate.isfinite().all():
            raise ModelError(f"{method} made values that are not numbers of {original.name}")
        return estimate


def make_low_resolution(
    original: GrayscaleImage, scale: int, noise: Noise | None = None
) -> torch.Tensor:
    """Make the low-resolution image in the bit depth of the original.

    Parameters
    ----------
    original : GreyImage
        Its sides are multiples of `scale`.
    scale : int
        Whole factor.
    noise : Noise, optional
        Added to the low-resolution image.

    Returns
    -------
    torch.Tensor
        ``(1, 1, H / scale, W / scale)`` float32, whole numbers in the range.
    """
    low = training_pairs.degrade(original, scale)
    if noise is None:
        return low
    noisy = noise.add(
        low.numpy(), minimum=original.minimum, maximum=original.maximum, name=original.name
    )
    return torch.from_numpy(noisy)


def read_ground_truth(path: Path, multiple: int) -> GrayscaleImage:
    """Read one image, cut to a multiple of the scale.

    Parameters
    ----------
    path : Path
        A grey picture of 8 or 16 bits, or a DICOM radiograph of 8 to 16 bits
        with one frame.
    multiple : int
        Height and width are cut at the bottom and right to a multiple of it.

    Returns
    -------
    GreyImage
        Its stored values, without their padding (`read_images`). That it
        is MONOCHROME1 the network is told, the metrics are not.

    Raises
    ------
    InputError
        If it cannot be read or is not one that `upscale` would take.
    """
    try:
        images = read_images(path, multiple)
    except InputError as error:
        if is_picture(path):  # named already
            raise
        raise type(error)(f"{path.name}: {error}") from error
    if len(images) != 1:
        raise InputError(f"{path.name}: {len(images)} frames; originals have one")
    return images[0]
