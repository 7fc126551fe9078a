"""What a run does to its files, wherever it is computed."""

from dataclasses import dataclass

from cxrsr_cli.derive.identity import Recipe, restoring
from cxrsr_cli.read.permission import Permission
from cxrsr_cli.write.syntax import OutputSyntax


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
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

    recipe: Recipe
    device: str
    allowed: frozenset[Permission]
    syntax: OutputSyntax
    overwrite: bool

    @property
    def choices(self) -> str:
        """What the user chose for the outputs, whatever the machine and version."""
        recipe = self.recipe
        parts = (
            restoring(consistency=recipe.consistency, ensemble=recipe.ensemble),
            recipe.precision,
            self.syntax,
            "private" if recipe.keep_private else "public",
            recipe.series_description or "",
        )
        return "|".join(parts)
