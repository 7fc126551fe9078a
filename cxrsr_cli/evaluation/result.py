"""The result of an evaluation at one scale."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from cxrsr_cli.evaluation.evaluator import ImageScores
from cxrsr_cli.evaluation.input_kinds import InputKind
from cxrsr_cli.evaluation.methods import Method
from cxrsr_cli.evaluation.paired_statistics import PairedDifference, average, compare
from cxrsr_cli.evaluation.resource_usage import MethodComplexity
from cxrsr_cli.metrics.metric import Metric
from cxrsr_cli.metrics.psnr_ssim import PSNR, PSNR_OUTSIDE_MARKS
from cxrsr_cli.networks.model_files import ModelFile


@dataclass(frozen=True, slots=True)
class MethodCost:
    """Complexity, time and memory of a method.

    Attributes
    ----------
    complexity : MethodComplexity
        Parameters and operations.
    seconds : float
        Per megapixel of output, median over the images.
    peak_bytes : float or None
        Per megapixel of output, maximum over the images. `ResourceUsage`
        defines it.
    """

    complexity: MethodComplexity
    seconds: float
    peak_bytes: float | None


@dataclass(frozen=True, slots=True)
class Cell:
    """The images of one group with one kind of input.

    Attributes
    ----------
    input_kind : InputKind
        How the inputs were made.
    group : str
        Group of the images.
    images : sequence of ImageScores
        At least one.
    """

    input_kind: InputKind
    group: str
    images: Sequence[ImageScores]


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Scores of all images, and the conditions of the evaluation.

    Attributes
    ----------
    scale : int
        Factor.
    methods : sequence of Method
        In the order of the tables.
    reference : Method
        The method that the others are compared with; one of `methods`.
    models : mapping
        The model of every base that is a model.
    images : sequence of ImageScores
        One for each image and kind of input; none if no file could be used.
    complexities : mapping
        By method.
    data : mapping
        The folder or list of each group, as the user wrote it.
    device : str
        Devices of the networks.
    threads : int
        Number of CPU threads.
    whole_image : bool
        Whether PSNR of the whole image is the first figure, with burnt-in marks.
    """

    scale: int
    methods: Sequence[Method]
    reference: Method
    models: Mapping[str, ModelFile]
    images: Sequence[ImageScores]
    complexities: Mapping[Method, MethodComplexity]
    data: Mapping[str, str]
    device: str
    threads: int
    whole_image: bool = False
    failed: Mapping[Path, str] = field(default_factory=dict)
    """Files that could not be used, and why."""

    @property
    def quality(self) -> Metric:
        """The metric of the first figure."""
        return PSNR if self.whole_image else PSNR_OUTSIDE_MARKS

    @property
    def title(self) -> str:
        """One line with models, images and kinds of input."""
        if not self.images:
            return f"no image of {', '.join(self.data.values())} can be used at x{self.scale}"
        models = [f"{model.name} (SHA-256 {model.sha256[:12]})" for model in self.models.values()]
        subject = ", ".join(dict.fromkeys(models)) or f"x{self.scale}"
        count = len({image.path for image in self.images})
        kinds = dict.fromkeys(str(image.input_kind) for image in self.images)
        return (
            f"{subject} on {count} image{'s' * (count != 1)} of {', '.join(self.data.values())}, "
            f"input {', '.join(kinds)}"
        )

    def cells(self) -> Iterator[Cell]:
        """Yield each kind of input with each group, in their order."""
        kinds = dict.fromkeys(image.input_kind for image in self.images)
        for kind in kinds:
            for group in self.data:
                images = [
                    image
                    for image in self.images
                    if image.input_kind == kind and image.group == group
                ]
                if images:
                    yield Cell(kind, group, images)

    def mean(self, method: Method, metric: Metric) -> float:
        """Return the mean over the cases for which the metric is defined."""
        return average(self.images, method, metric)

    def difference(self, method: Method, metric: Metric) -> PairedDifference:
        """Compare a method with the reference, case by case."""
        return compare(self.images, method, self.reference, metric)

    def cost(self, method: Method) -> MethodCost:
        """Return complexity, median time and largest memory of a method."""
        usages = [(image.usages[method], image.megapixels) for image in self.images]
        peaks = [usage.peak_bytes / size for usage, size in usages if usage.peak_bytes is not None]
        return MethodCost(
            self.complexities[method],
            median(usage.seconds / size for usage, size in usages),
            max(peaks, default=None),
        )
