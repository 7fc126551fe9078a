"""Versions of cxrsr and of the libraries that it uses."""

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from cxrsr_cli import __version__

NOTICE = "Not a medical device; not for diagnosis."

_PACKAGES = ("torch", "pydicom", "numpy", "highdicom", "safetensors")


@dataclass(frozen=True, slots=True)
class OptionalFeature:
    """A feature that needs an optional extra of this package.

    Attributes
    ----------
    name : str
        Name of the feature.
    extra : str
        Extra that installs it.
    package : str
        Library that it needs.
    version : str or None
        Installed version of the library; None if it is not installed.
    """

    name: str
    extra: str
    package: str
    version: str | None


_FEATURES = (
    ("C-STORE", "net", "pynetdicom"),
    ("STOW-RS", "web", "requests"),
    ("clusters", "cluster", "distributed"),
)


def versions() -> dict[str, str | None]:
    """Return the versions that can change an output; None if a library is not installed."""
    return {
        "cxrsr": __version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def optional_features() -> list[OptionalFeature]:
    """Return the features of all extras without importing their libraries."""
    return [OptionalFeature(*what, _version(what[-1])) for what in _FEATURES]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
