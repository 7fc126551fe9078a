"""Which software this is."""

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from cxrsr_cli import __version__

NOTICE = "Not a medical device; not for diagnosis."

_PACKAGES = ("torch", "pydicom", "numpy", "highdicom", "safetensors")


@dataclass(frozen=True, slots=True)
class OptionalFeature:
    """What an extra brings.

    Attributes
    ----------
    name : str
        What it is, for people.
    extra : str
        Of this package.
    package : str
        The library that does it.
    version : str or None
        None if it is not installed.
    """

    name: str
    extra: str
    package: str
    version: str | None


_SERVICES = (
    ("C-STORE", "net", "pynetdicom"),
    ("STOW-RS", "web", "requests"),
    ("clusters", "cluster", "distributed"),
)


def versions() -> dict[str, str | None]:
    """Return the versions that matter to an output; None for what is missing."""
    return {
        "cxrsr": __version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def optional_features() -> list[OptionalFeature]:
    """Return the services that extras bring; no library is imported."""
    return [OptionalFeature(*what, _version(what[-1])) for what in _SERVICES]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
