"""Model files: safetensors with everything about the model in the header.

Finding models and reading their headers needs no torch.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cxrsr_cli.common.files import atomic_write, sha256_file
from cxrsr_cli.errors import ModelError
from cxrsr_cli.networks.config import SCALES, Agreement, NetworkComplexity, NetworkConfig
from cxrsr_cli.networks.registry import config_from_dict

if TYPE_CHECKING:
    from cxrsr_cli.networks.layers import SuperResolutionNetwork

DEFAULT_MODEL = "rir-s"
_FORMAT_PREFIX = "cxrsr-"
FORMAT = _FORMAT_PREFIX + "2"
"""Version 1 states no agreement; its networks were trained for that of the bicubic kernel."""
SUFFIX = ".safetensors"
NOISE_LEVEL_FILE = "noise-level" + SUFFIX
"""Weights of `cxrsr_cli.networks.noise_level`, which belong to no scale."""

_PACKAGE = Path(__file__).resolve().parent.parent
# A wheel has the models inside the package, a checkout beside it.
_FOLDERS = (_PACKAGE / "models", _PACKAGE.parent / "models")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetadata:
    """The header of a model file.

    Attributes
    ----------
    name : str
        Name without scale: ``rir-s``.
    architecture : mapping
        `NetworkConfig.to_dict` of the network. The `config` made of it needs torch.
    complexity : NetworkComplexity
        Of the network.
    data : str
        What it was trained on.
    command : str
        The command that trained it.
    steps : int
        Optimiser steps taken.
    config_sha256 : str
        Hash of the training configuration.
    software : str
        Versions of this package and of PyTorch.
    agreement : Agreement
        Agreement of outputs with their source by default. None for a network that learned to
        remove damage: agreement would bring it back.
    """

    name: str
    architecture: Mapping[str, Any]
    complexity: NetworkComplexity
    data: str
    command: str
    steps: int
    config_sha256: str
    software: str
    agreement: Agreement = Agreement.NOISE

    @property
    def scale(self) -> int:
        """The network's scale."""
        scale: int = self.architecture["scale"]
        return scale

    def config(self) -> NetworkConfig:
        """Read the architecture; this imports the family's module and torch.

        Raises
        ------
        ValueError, TypeError
            As `config_from_dict`.
        """
        return config_from_dict(self.architecture)

    def to_header(self) -> dict[str, str]:
        """Return the header, text to text as safetensors demands."""
        return {
            "format": FORMAT,
            "name": self.name,
            "architecture": json.dumps(dict(self.architecture), sort_keys=True),
            "parameters": str(self.complexity.parameters),
            "macs_per_input_pixel": str(self.complexity.macs),
            "data": self.data,
            "command": self.command,
            "steps": str(self.steps),
            "config_sha256": self.config_sha256,
            "software": self.software,
            "agreement": self.agreement.value,
        }

    @classmethod
    def from_header(cls, header: Mapping[str, str]) -> Self:
        """Read a header.

        Raises
        ------
        ValueError, KeyError, TypeError
            If something is missing or illegal. The fields of the architecture are
            checked by `config`.
        """
        if header["format"] != FORMAT:
            raise ValueError(f"format {header['format']}, not {FORMAT}")
        architecture = json.loads(header["architecture"])
        if architecture["scale"] not in SCALES:
            raise ValueError(f"scale is {architecture['scale']}")
        return cls(
            name=header["name"],
            architecture=architecture,
            complexity=NetworkComplexity(
                int(header["parameters"]), int(header["macs_per_input_pixel"])
            ),
            data=header["data"],
            command=header["command"],
            steps=int(header["steps"]),
            config_sha256=header["config_sha256"],
            software=header["software"],
            agreement=Agreement(header["agreement"]),
        )


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file and its header.

    Attributes
    ----------
    path : Path
        The file.
    metadata : ModelMetadata
        Its header.
    sha256 : str
        Of the file.
    """

    path: Path
    metadata: ModelMetadata
    sha256: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file's header and hash the file.

        Raises
        ------
        ModelError
            As `read_metadata`.
        """
        return cls(path, read_metadata(path), sha256_file(path))

    @property
    def name(self) -> str:
        """Name with scale: ``rir-s-x4``."""
        return _full_name(self.metadata)


def bundled_models() -> list[ModelFile]:
    """List the models that come with the package, by name.

    Raises
    ------
    ModelError
        If one of them is damaged.
    """
    return [ModelFile.read(path) for path in _bundled_paths()]


def find_model(name_or_path: str, scale: int) -> ModelFile:
    """Find a model for a scale.

    Parameters
    ----------
    name_or_path : str
        Name of a bundled model, with or without its scale, or path of a model file.
    scale : int
        The model's scale.

    Raises
    ------
    ModelError
        If there is no such model, or it is damaged or of another scale.
    """
    path = Path(name_or_path)
    if path.suffix == SUFFIX or path.is_file():
        if not path.is_file():
            raise ModelError(f"no weights file {path}")
        model = ModelFile.read(path)
        if model.metadata.scale != scale:
            raise ModelError(f"{path} upscales by {model.metadata.scale}, not by {scale}")
        return model
    bundled = {path: read_metadata(path) for path in _bundled_paths()}
    for path, metadata in bundled.items():
        if metadata.scale == scale and name_or_path in (metadata.name, _full_name(metadata)):
            return ModelFile(path, metadata, sha256_file(path))
    known = ", ".join(map(_full_name, bundled.values())) or "none"
    raise ModelError(f"no model '{name_or_path}' for scale {scale}; available: {known}")


def find_model_by_sha256(sha256: str, others: Iterable[Path] = ()) -> ModelFile:
    """Find a model by the hash of its file, among the given files and the bundled ones.

    Raises
    ------
    ModelError
        If there is none, or a file cannot be read.
    """
    for path in (*others, *_bundled_paths()):
        if _file_sha256(path) == sha256:
            return ModelFile(path, read_metadata(path), sha256)
    raise ModelError(
        f"no weights with the SHA-256 {sha256[:12]} are bundled; name their file with --model"
    )


def _file_sha256(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise ModelError(f"cannot read the weights {path} ({error.strerror})") from error


def read_metadata(path: Path) -> ModelMetadata:
    """Read the header of a model file, without torch.

    Raises
    ------
    ModelError
        If the file is damaged or is not a model of this project.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as opened:
            header = opened.metadata() or {}
        return ModelMetadata.from_header(header)
    except OSError as error:
        raise ModelError(f"cannot read the weights {path}") from error
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged or not a safetensors file: {error}") from error
    # RecursionError for JSON that is nested deeply.
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        written = header.get("format", "")
        if written.startswith(_FORMAT_PREFIX) and written != FORMAT:
            raise ModelError(
                f"{path} is of another version of cxrsr: its format is {written[:16]}, not "
                f"{FORMAT}; use that version, or train the network again"
            ) from error
        raise _not_a_model(path) from error


def load_network(path: Path, metadata: ModelMetadata | None = None) -> "SuperResolutionNetwork":
    """Build the network of a model file, in evaluation mode, on the CPU.

    Parameters
    ----------
    path : Path
        The file.
    metadata : ModelMetadata, optional
        Its header, if it has been read already.

    Raises
    ------
    ModelError
        If the file is damaged, its architecture is illegal, or its tensors are not
        those of its architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from cxrsr_cli.networks.layers import build_network

    try:
        architecture = (metadata or read_metadata(path)).config()
        _check_size(architecture, path)
    except (ValueError, TypeError, OSError) as error:
        raise _not_a_model(path) from error
    try:
        tensors = load_file(path)
        if not all(tensor.is_floating_point() for tensor in tensors.values()):
            raise TypeError("not real numbers")
        network = build_network(architecture)
        network.load_state_dict(tensors)
    except (SafetensorError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"{path} does not hold the tensors that its header describes") from error
    if any(not parameter.isfinite().all() for parameter in network.parameters()):
        raise ModelError(f"{path} holds weights that are not finite numbers")
    return network.eval()


def _check_size(architecture: NetworkConfig, path: Path) -> None:
    """Compare a network with its file before it is built: a few bytes can describe a huge one.

    Raises
    ------
    ModelError
        If the file is smaller than the weights.
    """
    left = path.stat().st_size
    for convolution in architecture.convolutions():
        left -= convolution.parameters
        if left < 0:
            raise ModelError(f"{path} does not hold the tensors that its header describes")


def save_network(network: "SuperResolutionNetwork", metadata: ModelMetadata, path: Path) -> None:
    """Write a model file, whole or not at all."""
    from safetensors.torch import save_file

    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata=metadata.to_header())


def find_bundled_file(name: str) -> Path:
    """Return the path of a file that comes with the package, in the folder of the models.

    Raises
    ------
    ModelError
        If it is missing.
    """
    for folder in _FOLDERS:
        if (folder / name).is_file():
            return folder / name
    raise ModelError(f"this installation has no {name}; install cxrsr again")


def _bundled_paths() -> list[Path]:
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    files = sorted(folder.glob(f"*{SUFFIX}")) if folder else []
    return [path for path in files if path.name != NOISE_LEVEL_FILE]


def _full_name(metadata: ModelMetadata) -> str:
    return f"{metadata.name}-x{metadata.scale}"


def _not_a_model(path: Path) -> ModelError:
    return ModelError(f"{path} is no cxrsr model: its header has no legal '{FORMAT}' description")
