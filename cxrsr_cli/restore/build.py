"""From a description to the network: the one place that knows every family."""

from cxrsr_cli.restore.architecture import Architecture, RirArchitecture
from cxrsr_cli.restore.network import ResidualInResidual
from cxrsr_cli.restore.parts import SuperResolver
from cxrsr_cli.restore.rival_architectures import (
    EdsrArchitecture,
    RcanArchitecture,
    SrcnnArchitecture,
)
from cxrsr_cli.restore.rivals import Edsr, Rcan, Srcnn


def build(architecture: Architecture) -> SuperResolver:
    """Build an untrained network.

    Parameters
    ----------
    architecture : Architecture
        Of any family.

    Returns
    -------
    SuperResolver
        In training mode, float32, on the CPU.

    Raises
    ------
    TypeError
        For a description of no known family.
    """
    match architecture:
        case RirArchitecture():
            return ResidualInResidual(architecture)
        case SrcnnArchitecture():
            return Srcnn(architecture)
        case EdsrArchitecture():
            return Edsr(architecture)
        case RcanArchitecture():
            return Rcan(architecture)
        case _:
            raise TypeError(f"no network is known for a {type(architecture).__name__}")
