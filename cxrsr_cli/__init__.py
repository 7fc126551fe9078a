"""Super-resolution of chest radiographs, DICOM in, derived DICOM out.

Not a medical device; not for diagnosis. docs/python.md shows how to use this package from
Python. torch is imported when the first model is loaded.
"""

import logging
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxrsr_cli.errors import CxrsrError
    from cxrsr_cli.options import UpscaleOptions
    from cxrsr_cli.upscaler import Upscaler
    from cxrsr_cli.verify.verify import VerificationReport

__version__ = "0.1.0"

__all__ = ["CxrsrError", "UpscaleOptions", "Upscaler", "load_model", "verify_file"]

# Without a handler, Python would write warnings of the library to stderr.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_MODULES = {
    "CxrsrError": "cxrsr_cli.errors",
    "UpscaleOptions": "cxrsr_cli.options",
    "Upscaler": "cxrsr_cli.upscaler",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    """Import a public class when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(_MODULES[name]), name)


def load_model(name_or_path: str | Path | None = None, **options: Any) -> "Upscaler":  # noqa: ANN401
    """Load a model.

    Parameters
    ----------
    name_or_path : str or Path, optional
        Name of a bundled model, or path of a weights file; the default model if not given.
    **options
        Fields of `UpscaleOptions`, such as ``scale=2``, ``device="cpu"`` or
        ``memory=1 << 30``. Enumerations may be given as strings: ``precision="bf16"``.

    Returns
    -------
    Upscaler
        Any number of threads may use it at the same time.

    Raises
    ------
    ValueError
        If an option is unknown or illegal.
    ModelError
        If there is no such model, or it is damaged or of another scale.
    DeviceError
        If this machine does not have the device or the precision.
    """
    from pydantic import TypeAdapter

    from cxrsr_cli.networks.model_files import find_model
    from cxrsr_cli.options import UpscaleOptions
    from cxrsr_cli.upscaler import Upscaler

    if name_or_path is not None:
        options["model"] = str(name_or_path)
    chosen = TypeAdapter(UpscaleOptions).validate_python(options)
    return Upscaler.load(find_model(chosen.model, chosen.scale), chosen)


def verify_file(
    source: str | Path,
    derived: str | Path,
    *,
    agreement: str | None = None,
    recompute: bool = False,
    models: Sequence[str | Path] = (),
) -> "VerificationReport":
    """Check a derived file against its source.

    Parameters
    ----------
    source, derived : str or Path
        The two files.
    agreement : str, optional
        What the mean of each block of the derived image must be: ``exact``, the source's
        pixel; ``noise``, the same to within its estimated noise; ``none``, anything. By
        default what the file states.
    recompute : bool
        Make the output again with the model that the file names, and compare.
    models : sequence of str or Path
        Weights files to look for that model in, besides the bundled ones.

    Returns
    -------
    VerificationReport
        Its `holds` is True if no check fails; `findings` has the checks, and those not done.

    Raises
    ------
    ValueError
        If there is no such agreement.
    InputError
        If a file cannot be read or decoded.
    VerificationError
        If the sizes are not those of an image and its upscaled image.
    """
    from cxrsr_cli.networks.config import Agreement
    from cxrsr_cli.verify.recompute import Recomputation
    from cxrsr_cli.verify.verify import verify

    return verify(
        Path(source),
        Path(derived),
        agreement=Agreement(agreement) if agreement else None,
        recomputation=Recomputation(tuple(map(Path, models))) if recompute else None,
    )
