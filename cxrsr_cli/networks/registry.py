"""Every kind of architecture by the name of its network, and how one is read."""

from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from typing import Any

from cxrsr_cli.networks.config import NetworkConfig, NetworkFamily, RirConfig
from cxrsr_cli.networks.layers import SuperResolutionNetwork
from cxrsr_cli.networks.rir import ResidualInResidual
from cxrsr_cli.networks.rival_configs import (
    EdsrConfig,
    RcanConfig,
    SrcnnConfig,
)
from cxrsr_cli.networks.rivals import Edsr, Rcan, Srcnn

_KINDS: tuple[type[NetworkConfig], ...] = (
    RirConfig,
    SrcnnConfig,
    EdsrConfig,
    RcanConfig,
)
FAMILY = {kind.network: kind for kind in _KINDS}

KEY = "network"
"""Names the network in a configuration and a header; without it, `NetworkFamily.RIR`."""


def config_class(plain: Mapping[str, Any]) -> type[NetworkConfig]:
    """Return the class that a plain description is of.

    Raises
    ------
    ValueError
        If there is no such network.
    """
    name = plain.get(KEY, NetworkFamily.RIR)
    if not isinstance(name, str) or name not in set(NetworkFamily):
        raise ValueError(f"{KEY} is '{name}'; it must be one of {', '.join(NetworkFamily)}")
    return FAMILY[NetworkFamily(name)]


def config_from_dict(plain: Mapping[str, Any]) -> NetworkConfig:
    """Read what `NetworkConfig.to_dict` wrote: nothing it writes may be missing.

    Parameters
    ----------
    plain : mapping
        Plain JSON types.

    Returns
    -------
    Architecture
        Of the kind that ``network`` names.

    Raises
    ------
    ValueError, TypeError
        If a field is unknown, missing or illegal.
    """
    if not isinstance(plain, Mapping):
        raise TypeError("an architecture is a mapping of keys to values")
    kind = config_class(plain)
    given = {name: value for name, value in plain.items() if name != KEY}
    for field in fields(kind):
        if field.name not in given:
            raise ValueError(f"{field.name} is missing")
        value = given[field.name]
        if isinstance(field.type, type) and issubclass(field.type, StrEnum):
            given[field.name] = field.type(value)
        elif isinstance(value, list):
            given[field.name] = tuple(value)
    return kind(**given)


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
