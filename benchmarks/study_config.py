"""What a study trains and compares: models/studies/NAME.yaml, checked."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import TypeAdapter

from cxrsr_cli.evaluation.protocol import PROTOCOLS, ProtocolName
from cxrsr_cli.metrics.metric import Metric
from cxrsr_cli.metrics.psnr_ssim import PSNR, PSNR_OUTSIDE_MARKS
from cxrsr_cli.networks.model_files import SUFFIX
from cxrsr_cli.training.config import TrainConfig, load_train_config

ROOT = Path(__file__).resolve().parent.parent
STUDIES = ROOT / "models" / "studies"
RECIPE = ROOT / "models" / "rir-s-x4.yaml"
SHORT = ("stages=[{steps: 1000, batch_size: 8, patch_size: 24}]",)
"""What a training of a study overrides in the recipe of the shipped network."""
PAGES = ROOT / "docs" / "studies"
RUNS = Path("runs/studies")

_FORBID: dict[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of a table: a network of a training, or a method that `evaluate` knows.

    Attributes
    ----------
    about : str
        What it is, for the table.
    overrides : tuple of str
        ``key=value``: how its training differs from the recipe.
    method : str or None
        What `evaluate` calls it; then nothing is trained.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    about: str
    overrides: tuple[str, ...] = ()
    method: str | None = None

    def __post_init__(self) -> None:
        if self.method and self.overrides:
            raise ValueError("a method is not trained: overrides mean nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A comparison, one table for each scale.

    Attributes
    ----------
    name : str
        Of its place in the page.
    scales : tuple of int
        Factors.
    reference : str
        The entry that the others are compared with.
    entries : tuple of str
        In the order of the lines.
    suffix : str
        Of every trained network's method, such as ``+exact``.
    data : tuple of str
        Folders or lists that `evaluate` is given, each a group.
    protocol : ProtocolName
        What `evaluate` is given, too.
    inputs : str
        The same, or empty for the inputs of the protocol.
    by_kind : bool
        Whether the table has a line for each group and a column for each kind of input.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    name: str
    scales: tuple[int, ...]
    reference: str
    entries: tuple[str, ...]
    suffix: str = ""
    data: tuple[str, ...] = ("data/cxr/nih/test",)
    protocol: ProtocolName = ProtocolName.MIXED
    inputs: str = ""
    by_kind: bool = False

    @property
    def first_figure(self) -> Metric:
        """The metric that entries are compared by."""
        return PSNR if PROTOCOLS[self.protocol].whole_image else PSNR_OUTSIDE_MARKS

    @property
    def digest(self) -> str:
        """Short name of what is evaluated, for files."""
        parts = (*self.data, self.protocol, self.inputs)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Networks and tables.

    Attributes
    ----------
    entries : dict
        By name.
    tables : tuple of Table
        Of them.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    entries: dict[str, Entry] = field(default_factory=dict)
    tables: tuple[Table, ...]

    def __post_init__(self) -> None:
        for table in self.tables:
            unknown = {table.reference, *table.entries} - set(self.entries)
            if unknown:
                raise ValueError(f"{table.name} compares unknown {', '.join(sorted(unknown))}")
            if table.reference not in table.entries:
                raise ValueError(f"{table.name} does not show its reference")


@dataclass(frozen=True, slots=True)
class Training:
    """A network of a study at one scale.

    Attributes
    ----------
    name : str
        Of its entry.
    entry : Entry
        The entry.
    scale : int
        Factor.
    """

    name: str
    entry: Entry
    scale: int

    @property
    def folder(self) -> Path:
        """Of its run."""
        return RUNS / f"{self.name}-x{self.scale}"

    @property
    def weights(self) -> Path:
        """What it ends in."""
        return self.folder / f"{self.name}-x{self.scale}{SUFFIX}"

    @property
    def overrides(self) -> list[str]:
        """How it differs from the recipe; the scale last, for a whole architecture."""
        own = (f"name={self.name}", *self.entry.overrides)
        return [*SHORT, *own, f"architecture.scale={self.scale}"]

    def config(self, extra: tuple[str, ...] = ()) -> TrainConfig:
        """Read what it trains."""
        return load_train_config(RECIPE, [*self.overrides, *extra])


def load_study(name: str) -> Study:
    """Read a study by its name.

    Raises
    ------
    OSError, pydantic.ValidationError
        If there is none, or it is not as it should be.
    """
    plain = yaml.safe_load((STUDIES / f"{name}.yaml").read_text(encoding="utf-8"))
    return TypeAdapter(Study).validate_python(plain)


def study_names() -> list[str]:
    """List the studies."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))
