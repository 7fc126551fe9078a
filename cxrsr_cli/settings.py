"""How a model is to be run, as values: what a process needs to make an `Upscaler` of it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from cxrsr_cli.clock import now
from cxrsr_cli.read.permission import AcceptanceOverride
from cxrsr_cli.restore.precision import Precision
from cxrsr_cli.restore.registry import ModelFile
from cxrsr_cli.write.syntax import OutputTransferSyntax

if TYPE_CHECKING:
    from cxrsr_cli.upscale import Upscaler


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
        from cxrsr_cli.restore.restorer import Predictor
        from cxrsr_cli.upscale import Upscaler

        restorer = Predictor.load(
            model.path,
            device=self.device,
            precision=self.precision,
            memory=self.memory,
            consistent=self.consistent,
            ensemble=self.ensemble,
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
