"""Downsample originals, upscale them by every method and compute every metric."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch

from cxrsr_cli.errors import InputError, ModelError
from cxrsr_cli.evaluation.methods import Method
from cxrsr_cli.evaluation.noise import Noise
from cxrsr_cli.evaluation.resource_usage import MethodComplexity, ResourceUsage, measure_usage
from cxrsr_cli.images.image_files import GrayscaleImage, is_picture, read_images
from cxrsr_cli.inference.data_consistency import project_iteratively
from cxrsr_cli.inference.impulse_filter import remove_impulses
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.metrics.metric import ImageComparison
from cxrsr_cli.metrics.registry import METRICS
from cxrsr_cli.networks.resampling import upsample


@dataclass(frozen=True, slots=True)
class ImageScores:
    """Scores of every method on one image.

    Attributes
    ----------
    name : str
        Name of the image.
    height, width : int
        Size of the original in pixels.
    minimum, maximum : float
        Legal range of its stored values.
    scores : dict
        For each method the value of every metric, by its key.
    usages : dict
        Time and memory of each method, without the metrics.
    """

    name: str
    height: int
    width: int
    minimum: float
    maximum: float
    scores: dict[Method, dict[str, float]]
    usages: dict[Method, ResourceUsage]

    @property
    def megapixels(self) -> float:
        """Millions of pixels of the output."""
        return self.height * self.width / 1e6


@dataclass(frozen=True, slots=True)
class MethodOutput:
    """The output of a method.

    Attributes
    ----------
    values : torch.Tensor
        ``(1, 1, H, W)`` float32, whole stored values within the legal range.
    usage : ResourceUsage
        Its time and memory.
    """

    values: torch.Tensor
    usage: ResourceUsage


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Methods at one scale with their loaded networks.

    Attributes
    ----------
    scale : int
        Factor.
    methods : sequence of Method
        In the order of the tables.
    predictors : mapping
        The network of every base that is a model.
    noise : Noise or None
        Noise that is added to the low-resolution input.
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
            As for `Predictor.load`.

        Raises
        ------
        ModelError, DeviceError
            As `Predictor.load`.
        """
        predictors = {
            base: Predictor.load(path, device=device, memory=memory)
            for base, path in models.items()
        }
        return cls(scale, methods, predictors, noise)

    @property
    def device(self) -> str:
        """Devices of the networks."""
        devices = dict.fromkeys(str(each.device) for each in self.predictors.values())
        return ", ".join(devices) or "cpu"

    def evaluate(self, paths: Iterable[Path]) -> Iterator[ImageScores]:
        """Score every method on every image.

        Parameters
        ----------
        paths : iterable of Path
            Files of the originals.

        Yields
        ------
        ImageScores
            For each image, computed on whole stored values.

        Raises
        ------
        InputError
            See `read_ground_truth`.
        ModelError
            See `outputs`.
        """
        for path in paths:
            original = read_ground_truth(path, self.scale)
            low = make_low_resolution(original, self.scale, self.noise)
            scores, usages = dict[Method, dict[str, float]](), dict[Method, ResourceUsage]()
            for method, output in self.outputs(original, low):
                scores[method] = compute_scores(output.values, original, low, self.scale)
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
        """Upscale an image by every method.

        Parameters
        ----------
        original : GrayscaleImage
            Gives the legal range and the polarity. Its pixels are not used.
        low : torch.Tensor
            ``(1, 1, h, w)`` float32 stored values.

        Yields
        ------
        tuple of Method and MethodOutput
            Methods that share an estimate follow each other, so that it is
            computed once.

        Raises
        ------
        ModelError
            If an output of a network is not finite.
        """
        pixel_range = original.pixel_range
        minimum, maximum = pixel_range.minimum, pixel_range.maximum
        for base in dict.fromkeys(replace(method, consistent=False) for method in self.methods):
            device = self._device(base)
            with measure_usage(device) as estimation:
                source = low
                if base.impulse_filter:
                    source = remove_impulses(low, pixel_range)
                estimate = self._estimate(base, original, source)
            if base in self.methods:
                with measure_usage(device) as clipping:
                    values = estimate.clamp(minimum, maximum).round_()
                yield base, MethodOutput(values, estimation.combined_with(clipping))
            consistent = replace(base, consistent=True)
            if consistent in self.methods:
                with measure_usage(device) as projection:
                    values = project_iteratively(
                        estimate, source, self.scale, minimum=minimum, maximum=maximum
                    )
                    values.round_()
                yield consistent, MethodOutput(values, estimation.combined_with(projection))

    def complexity(self, method: Method) -> MethodComplexity:
        """Count the parameters and operations of a method."""
        if not method.is_model:
            return MethodComplexity()
        return MethodComplexity.of(self.predictors[method.base], ensemble=method.ensemble)

    def _device(self, method: Method) -> torch.device:
        return self.predictors[method.base].device if method.is_model else torch.device("cpu")

    def _estimate(
        self, method: Method, original: GrayscaleImage, low: torch.Tensor
    ) -> torch.Tensor:
        if not method.is_model:
            return upsample(low, self.scale)
        estimate = replace(self.predictors[method.base], self_ensemble=method.ensemble).predict(
            low, original.pixel_range, consistency=False
        )
        if not estimate.isfinite().all():
            raise ModelError(f"the output of {method} for {original.name} is not finite")
        return estimate


def compute_scores(
    output: torch.Tensor, original: GrayscaleImage, low: torch.Tensor, scale: int
) -> dict[str, float]:
    """Compute every metric of one output.

    Parameters
    ----------
    output : torch.Tensor
        ``(1, 1, H, W)`` float32, whole stored values within the legal range.
    original : GrayscaleImage
        Of the same size.
    low : torch.Tensor
        ``(1, 1, H / scale, W / scale)`` float32, the input with its noise.
    scale : int
        Factor.

    Returns
    -------
    dict
        Values by the keys of the metrics.
    """
    compared = ImageComparison(
        output, original.values, low, original.minimum, original.maximum, scale
    )
    return {metric.key: metric.compute(compared) for metric in METRICS}


def make_low_resolution(
    original: GrayscaleImage, scale: int, noise: Noise | None = None
) -> torch.Tensor:
    """Downsample an original and add noise to it.

    Parameters
    ----------
    original : GrayscaleImage
        Its sides are multiples of `scale`.
    scale : int
        Factor.
    noise : Noise, optional
        Added to the low-resolution image.

    Returns
    -------
    torch.Tensor
        ``(1, 1, H / scale, W / scale)`` float32, whole stored values within the
        legal range.
    """
    low = original.downsample(scale)
    if noise is None:
        return low
    noisy = noise.add(
        low.numpy(), minimum=original.minimum, maximum=original.maximum, name=original.name
    )
    return torch.from_numpy(noisy)


def read_ground_truth(path: Path, multiple: int) -> GrayscaleImage:
    """Read an original.

    Parameters
    ----------
    path : Path
        A grayscale picture of 8 or 16 bits, or a DICOM radiograph of 8 to 16
        bits with one frame.
    multiple : int
        Height and width are cropped to a multiple of it, at the bottom and the
        right.

    Returns
    -------
    GrayscaleImage
        Stored values without padding (see `read_images`). Only the network uses
        the polarity, the metrics do not.

    Raises
    ------
    InputError
        If the file cannot be read, `upscale` would refuse it, or it has several
        frames.
    """
    try:
        images = read_images(path, multiple)
    except InputError as error:
        if is_picture(path):  # the message contains the name already
            raise
        raise type(error)(f"{path.name}: {error}") from error
    if len(images) != 1:
        raise InputError(f"{path.name}: {len(images)} frames; an original must have one frame")
    return images[0]
