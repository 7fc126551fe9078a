"""The result of an evaluation at one scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from cxrsr_cli.evaluation.evaluator import ImageScores
from cxrsr_cli.evaluation.methods import REFERENCE, Method
from cxrsr_cli.evaluation.noise import Noise
from cxrsr_cli.evaluation.paired_statistics import PairedDifference, average, compare
from cxrsr_cli.evaluation.resource_usage import MethodComplexity
from cxrsr_cli.metrics.metric import Metric
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
        At least one.
    complexities : mapping
        By method.
    data : str
        The folder or list as the user wrote it.
    device : str
        Devices of the networks.
    threads : int
        Number of CPU threads.
    noise : Noise or None
        Noise that was added to the input.
    """

    scale: int
    methods: Sequence[Method]
    reference: Method
    models: Mapping[str, ModelFile]
    images: Sequence[ImageScores]
    complexities: Mapping[Method, MethodComplexity]
    data: str
    device: str
    threads: int
    noise: Noise | None = None

    @property
    def reference_name(self) -> str:
        """Name in headings: "floor" for the default reference."""
        return "floor" if self.reference == REFERENCE else "reference"

    @property
    def title(self) -> str:
        """One line with model, images and noise."""
        models = [f"{model.name} (SHA-256 {model.sha256[:12]})" for model in self.models.values()]
        subject = ", ".join(dict.fromkeys(models)) or f"x{self.scale}"
        noise = f", noise {self.noise} on the input" if self.noise else ""
        count = len(self.images)
        return f"{subject} on {count} image{'s' * (count != 1)} of {self.data}{noise}"

    def mean(self, method: Method, metric: Metric) -> float:
        """Return the mean over the images for which the metric is defined."""
        return average(self.images, method, metric)

    def difference(self, method: Method, metric: Metric) -> PairedDifference:
        """Compare a method with the reference, image by image."""
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
