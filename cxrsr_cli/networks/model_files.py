"""The models at hand, found without importing torch."""

from dataclasses import dataclass
from pathlib import Path

from cxrsr_cli.common.files import sha256_file
from cxrsr_cli.errors import ModelError
from cxrsr_cli.networks.weights import (
    SUFFIX,
    ModelMetadata,
    read_metadata,
)

DEFAULT_MODEL = "rir-s"

_PACKAGE = Path(__file__).resolve().parent.parent
# A wheel carries the models inside the package; a checkout has them beside it.
_FOLDERS = (_PACKAGE / "models", _PACKAGE.parent / "models")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A weights file and what it says of itself.

    Attributes
    ----------
    path : Path
        The file.
    description : ModelDescription
        From its header.
    sha256 : str
        Of the file.
    """

    path: Path
    description: ModelMetadata
    sha256: str

    @property
    def name(self) -> str:
        """Name with scale: ``rir-s-x4``."""
        return f"{self.description.name}-x{self.description.architecture.scale}"


def bundled_models() -> list[ModelFile]:
    """List the models that come with the package, by name.

    Raises
    ------
    ModelError
        If one of them is damaged.
    """
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    if folder is None:
        return []
    return [_open(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]


def find_model(name_or_path: str, scale: int) -> ModelFile:
    """Find a model for a scale.

    Parameters
    ----------
    name_or_path : str
        Name of a shipped model, with or without its scale, or path of a
        weights file.
    scale : int
        Factor that it must have.

    Returns
    -------
    Model
        Its header read and its file hashed.

    Raises
    ------
    ModelError
        If there is no such model, or it is damaged or of another scale.
    """
    path = Path(name_or_path)
    if path.suffix == SUFFIX or path.is_file():
        if not path.is_file():
            raise ModelError(f"no weights file {path}")
        model = _open(path)
        if model.description.architecture.scale != scale:
            raise ModelError(
                f"{path} enlarges by {model.description.architecture.scale}, not by {scale}"
            )
        return model
    models = bundled_models()
    for model in models:
        if name_or_path in (model.name, model.description.name) and (
            model.description.architecture.scale == scale
        ):
            return model
    known = ", ".join(model.name for model in models) or "none"
    raise ModelError(f"no model '{name_or_path}' for scale {scale}; at hand: {known}")


def _open(path: Path) -> ModelFile:
    return ModelFile(path, read_metadata(path), sha256_file(path))
