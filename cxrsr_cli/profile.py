"""What a run does to its files, wherever it is computed."""

from dataclasses import dataclass

from cxrsr_cli.derive.identity import DerivationParameters, mode_label
from cxrsr_cli.read.permission import AcceptanceOverride
from cxrsr_cli.write.syntax import OutputTransferSyntax


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
