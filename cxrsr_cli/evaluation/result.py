"""All that an evaluation at one scale found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from cxrsr_cli.evaluation.evaluator import ImageScores
from cxrsr_cli.evaluation.methods import REFERENCE, Method
from cxrsr_cli.evaluation.noise import Noise
from cxrsr_cli.evaluation.paired_statistics import PairedDifference, average, compare
from cxrsr_cli.evaluation.resource_usage import NetworkComplexity
from cxrsr_cli.evaluation.scores import Metric
from cxrsr_cli.networks.model_files import ModelFile


@dataclass(frozen=True, slots=True)
class MethodCost:
    """What a method costs.

    Attributes
    ----------
    complexity : Complexity
        Counted.
    seconds : float
        Per megapixel of output: the median over the images.
    peak_bytes : float or None
        Per megapixel of output: the largest over the images; what it is, says
        `ResourceUsage`.
    """

    complexity: NetworkComplexity
    seconds: float
    peak_bytes: float | None


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Scores of all images, and what they were made with.

    Attributes
    ----------
    scale : int
        Factor.
    methods : sequence of Method
        In the order of the tables.
    reference : Method
        One of them: what the others are compared with.
    models : mapping
        The model of every base that is one.
    images : sequence of ImageScores
        At least one.
    complexities : mapping
        By method.
    data : str
        The folder, as the user named it.
    device : str
        Where the networks ran.
    threads : int
        Of the CPU.
    noise : Noise or None
        On the input.
    """

    scale: int
    methods: Sequence[Method]
    reference: Method
    models: Mapping[str, ModelFile]
    images: Sequence[ImageScores]
    complexities: Mapping[Method, NetworkComplexity]
    data: str
    device: str
    threads: int
    noise: Noise | None = None

    @property
    def reference_name(self) -> str:
        """For headings: the default reference is the floor."""
        return "floor" if self.reference == REFERENCE else "reference"

    @property
    def title(self) -> str:
        """One line that says what was evaluated."""
        named = [f"{model.name} (SHA-256 {model.sha256[:12]})" for model in self.models.values()]
        what = ", ".join(dict.fromkeys(named)) or f"x{self.scale}"
        noise = f", noise {self.noise} on the input" if self.noise else ""
        count = len(self.images)
        return f"{what} on {count} image{'s' * (count != 1)} of {self.data}{noise}"

    def mean(self, method: Method, metric: Metric) -> float:
        """Return the mean over the images where the metric is a number."""
        return average(self.images, method, metric)

    def difference(self, method: Method, metric: Metric) -> PairedDifference:
        """Compare a method with the reference."""
        return compare(self.images, method, self.reference, metric)

    def cost(self, method: Method) -> MethodCost:
        """Sum up what a method took."""
        used = [(image.usages[method], image.megapixels) for image in self.images]
        peaks = [usage.peak_bytes / size for usage, size in used if usage.peak_bytes is not None]
        return MethodCost(
            self.complexities[method],
            median(usage.seconds / size for usage, size in used),
            max(peaks, default=None),
        )
