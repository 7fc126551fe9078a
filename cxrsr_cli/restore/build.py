"""From a description to the network: the one place that knows every family."""

from cxrsr_cli.restore.architecture import NetworkConfig, RirConfig
from cxrsr_cli.restore.network import ResidualInResidual
from cxrsr_cli.restore.parts import SuperResolutionNetwork
from cxrsr_cli.restore.rival_architectures import (
    EdsrConfig,
    RcanConfig,
    SrcnnConfig,
)
from cxrsr_cli.restore.rivals import Edsr, Rcan, Srcnn


def build(architecture: NetworkConfig) -> SuperResolutionNetwork:
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
        case RirConfig():
            return ResidualInResidual(architecture)
        case SrcnnConfig():
            return Srcnn(architecture)
        case EdsrConfig():
            return Edsr(architecture)
        case RcanConfig():
            return Rcan(architecture)
        case _:
            raise TypeError(f"no network is known for a {type(architecture).__name__}")
