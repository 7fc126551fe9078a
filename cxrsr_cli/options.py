"""How a model is to be run, as values: what a process needs to make an `Upscaler` of it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cxrsr_cli.common.process import now
from cxrsr_cli.dicom.acceptance import AcceptanceOverride
from cxrsr_cli.dicom.transfer_syntax import OutputTransferSyntax
from cxrsr_cli.errors import CxrsrError
from cxrsr_cli.networks.config import Precision
from cxrsr_cli.networks.model_files import ModelFile

if TYPE_CHECKING:
    from cxrsr_cli.upscaler import Upscaler

from cxrsr_cli.derive.uids import DerivationParameters, mode_label


@dataclass(frozen=True, slots=True)
class Job:
    """One file to upscale.

    Attributes
    ----------
    source, target : Path
        From where to where.
    refused : CxrsrError or None
        Why planning found that it cannot be done.
    """

    source: Path
    target: Path
    error: CxrsrError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleOptions:
    """The user's choices for the outputs.

    Attributes
    ----------
    device, precision, memory, consistent, ensemble
        As `Predictor.load` takes them.
    allowed, syntax, keep_private, series_description
        As `Upscaler` takes them.
    """

    device: str = "auto"
    precision: Precision = Precision.AUTO
    memory: int | None = None
    consistent: bool | None = None
    ensemble: bool = False
    allowed: frozenset[AcceptanceOverride] = frozenset()
    syntax: OutputTransferSyntax = OutputTransferSyntax.SAME
    keep_private: bool = True
    series_description: str | None = None

    def load(
        self, model: ModelFile, *, overwrite: bool = False, clock: Callable[[], datetime] = now
    ) -> "Upscaler":
        """Load a model to be run so.

        Raises
        ------
        ModelError, DeviceError
            As `Predictor.load`.
        """
        from cxrsr_cli.inference.predictor import Predictor
        from cxrsr_cli.upscaler import Upscaler

        restorer = Predictor.load(
            model.path,
            metadata=model.metadata,
            device=self.device,
            precision=self.precision,
            memory=self.memory,
            consistency=self.consistent,
            self_ensemble=self.ensemble,
        )
        return Upscaler(
            restorer,
            model,
            self.allowed,
            overwrite=overwrite,
            syntax=self.syntax,
            keep_private=self.keep_private,
            series_description=self.series_description,
            clock=clock,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """What accounts say of a run beside its files.

    Attributes
    ----------
    recipe : Recipe
        What decides the outputs.
    device : str
        Where the network runs.
    allowed : frozenset of Permission
        What is accepted beyond chest radiographs for presentation.
    syntax : OutputSyntax
        Transfer syntax of outputs.
    overwrite : bool
        Whether existing outputs are replaced.
    """

    recipe: DerivationParameters
    device: str
    allowed: frozenset[AcceptanceOverride]
    syntax: OutputTransferSyntax
    overwrite: bool

    @property
    def options_key(self) -> str:
        """What the user chose for the outputs, whatever the machine and version."""
        recipe = self.recipe
        parts = (
            mode_label(consistency=recipe.consistency, ensemble=recipe.ensemble),
            recipe.precision,
            self.syntax,
            "private" if recipe.keep_private else "public",
            recipe.series_description or "",
        )
        return "|".join(parts)
