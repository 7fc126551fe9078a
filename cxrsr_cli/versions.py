"""Which software this is."""

import platform
from importlib.metadata import PackageNotFoundError, version

from cxrsr_cli import __version__

NOTICE = "Not a medical device; not for diagnosis."

_PACKAGES = ("torch", "pydicom", "numpy", "highdicom", "safetensors")


def versions() -> dict[str, str | None]:
    """Return the versions that matter to an output; None for what is missing."""
    return {
        "cxrsr": __version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
