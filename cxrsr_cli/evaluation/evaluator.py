"""Reduce originals to each kind of input, upscale them by every method and compute every metric."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch

from cxrsr_cli.errors import InputError, ModelError
from cxrsr_cli.evaluation.bicubic_consistency import project_on_bicubic
from cxrsr_cli.evaluation.input_kinds import InputKind
from cxrsr_cli.evaluation.methods import Method
from cxrsr_cli.evaluation.resource_usage import MethodComplexity, ResourceUsage, measure_usage
from cxrsr_cli.images.image_files import GrayscaleImage, read_images
from cxrsr_cli.images.marks import mark_mask
from cxrsr_cli.inference.agreement import enforce_agreement
from cxrsr_cli.inference.impulse_filter import remove_impulses
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.metrics.metric import ImageComparison
from cxrsr_cli.metrics.registry import METRICS
from cxrsr_cli.networks.config import Agreement
from cxrsr_cli.networks.resampling import upsample

_Network = tuple[str, float | None, Agreement | None]
"""The base of a method, its noise reduction and its agreement: a network is compiled for them."""


@dataclass(frozen=True, slots=True)
class ImageScores:
    """Scores of every method on one image with one kind of input.

    Attributes
    ----------
    group : str
        Group of the image, such as its hospital.
    path : Path
        File of the original.
    name : str
        Name of the image.
    input_kind : InputKind
        How the input was made.
    height, width : int
        Size of the original in pixels.
    minimum, maximum : float
        Legal range of its stored values.
    scores : dict
        For each method the value of every metric, by its key.
    usages : dict
        Time and memory of each method, without the metrics.
    """

    group: str
    path: Path
    name: str
    input_kind: InputKind
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
    """Methods at one scale with their loaded networks, and the kinds of their inputs.

    Attributes
    ----------
    scale : int
        Factor.
    methods : sequence of Method
        In the order of the tables.
    predictors : mapping
        The network of every method that uses one, by its base, noise reduction and agreement.
    inputs : sequence of InputKind
        In the order of the tables.
    """

    scale: int
    methods: Sequence[Method]
    predictors: Mapping[_Network, Predictor]
    inputs: Sequence[InputKind]

    @classmethod
    def load(
        cls,
        scale: int,
        methods: Sequence[Method],
        models: Mapping[str, Path],
        inputs: Sequence[InputKind],
        *,
        device: str = "auto",
        memory: int | None = None,
    ) -> Self:
        """Load the networks.

        Parameters
        ----------
        scale, methods, inputs
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
        predictors = dict[_Network, Predictor]()
        for method in methods:
            if method.is_model and _network(method) not in predictors:
                predictors[_network(method)] = Predictor.load(
                    models[method.base],
                    device=device,
                    memory=memory,
                    agreement=method.agreement,
                    noise_reduction=method.noise_reduction,
                )
        return cls(scale, methods, predictors, inputs)

    @property
    def device(self) -> str:
        """Devices of the networks."""
        devices = dict.fromkeys(str(each.device) for each in self.predictors.values())
        return ", ".join(devices) or "cpu"

    def evaluate(
        self,
        groups: Mapping[str, Sequence[Path]],
        failed: Callable[[Path, InputError], None] | None = None,
    ) -> Iterator[ImageScores]:
        """Score every method on every image with every kind of input.

        Parameters
        ----------
        groups : mapping
            Files of the originals of each group.
        failed : callable, optional
            Gets each file that cannot be used, and why; no score is yielded of it. Without it the
            error is raised.

        Yields
        ------
        ImageScores
            For each image and kind of input, computed on whole stored values.

        Raises
        ------
        InputError
            See `read_ground_truth`.
        ModelError
            See `outputs`.
        """
        for group, paths in groups.items():
            for path in paths:
                try:
                    scores = list(self._evaluate_image(group, path))
                except InputError as error:
                    if failed is None:
                        raise
                    failed(path, error)
                else:
                    yield from scores

    def _evaluate_image(self, group: str, path: Path) -> Iterator[ImageScores]:
        """Score one image with every kind of input."""
        original = read_ground_truth(path, self.scale)
        marks = mark_mask(original.values, original.data_range)
        height, width = original.values.shape[-2:]
        for kind in self.inputs:
            low = kind.reduce(original, self.scale)
            scores = dict[Method, dict[str, float]]()
            usages = dict[Method, ResourceUsage]()
            for method, output in self.outputs(original, low):
                scores[method] = compute_scores(output.values, original, low, marks, self.scale)
                usages[method] = output.usage
            yield ImageScores(
                group=group,
                path=path,
                name=original.name,
                input_kind=kind,
                height=height,
                width=width,
                minimum=original.minimum,
                maximum=original.maximum,
                scores=scores,
                usages=usages,
            )

    def outputs(
        self, original: GrayscaleImage, low: torch.Tensor
    ) -> Iterator[tuple[Method, MethodOutput]]:
        """Upscale an image by every method, in their order.

        Parameters
        ----------
        original : GrayscaleImage
            Gives the legal range and the polarity. Its pixels are not used.
        low : torch.Tensor
            ``(1, 1, h, w)`` float32 stored values.

        Yields
        ------
        tuple of Method and MethodOutput
            One for each method.

        Raises
        ------
        ModelError
            If an output of a network is not finite.
        """
        for method in self.methods:
            with measure_usage(self._device(method)) as usage:
                values = self._upscale(method, original, low)
                values = values.clamp(original.minimum, original.maximum).round_()
            yield method, MethodOutput(values, usage)

    def complexity(self, method: Method) -> MethodComplexity:
        """Count the parameters and operations of a method."""
        if not method.is_model:
            return MethodComplexity()
        return MethodComplexity.of(self.predictors[_network(method)], ensemble=method.ensemble)

    def _device(self, method: Method) -> torch.device:
        if not method.is_model:
            return torch.device("cpu")
        return self.predictors[_network(method)].device

    def _upscale(self, method: Method, original: GrayscaleImage, low: torch.Tensor) -> torch.Tensor:
        pixel_range = original.pixel_range
        source = remove_impulses(low, pixel_range) if method.impulse_filter else low
        if method.is_model:
            estimate = self._predictor(method).predict(source, pixel_range)
            if not estimate.isfinite().all():
                raise ModelError(f"the output of {method} for {original.name} is not finite")
        else:
            estimate = upsample(source, self.scale)
            if method.agreement is Agreement.EXACT:
                estimate = enforce_agreement(
                    estimate,
                    source,
                    self.scale,
                    bound=0.0,
                    minimum=pixel_range.minimum,
                    maximum=pixel_range.maximum,
                )
        if method.consistent:
            estimate = project_on_bicubic(estimate, source, self.scale, pixel_range)
        return estimate

    def _predictor(self, method: Method) -> Predictor:
        predictor = self.predictors[_network(method)]
        agreement = Agreement.NONE if method.consistent else predictor.agreement
        return replace(predictor, agreement=agreement, self_ensemble=method.ensemble)


def _network(method: Method) -> _Network:
    return method.base, method.noise_reduction, method.agreement


def compute_scores(
    output: torch.Tensor,
    original: GrayscaleImage,
    low: torch.Tensor,
    marks: torch.Tensor,
    scale: int,
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
    marks : torch.Tensor
        ``(1, 1, H, W)`` bool, the `mark_mask` of the original.
    scale : int
        Factor.

    Returns
    -------
    dict
        Values by the keys of the metrics.
    """
    compared = ImageComparison(
        output, original.values, low, marks, original.minimum, original.maximum, scale
    )
    return {metric.key: metric.compute(compared) for metric in METRICS}


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
        frames. The message does not name it.
    """
    images = read_images(path, multiple)
    if len(images) != 1:
        raise InputError(f"{len(images)} frames; an original must have one frame")
    return images[0]
