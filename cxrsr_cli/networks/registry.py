"""The families of networks, by the name that a configuration and a header give."""

from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from importlib import import_module
from typing import Any

from cxrsr_cli.networks.config import NetworkConfig

FAMILIES: dict[str, str] = {
    "rir": "cxrsr_cli.networks.rir:RirConfig",
    "srcnn": "cxrsr_cli.networks.srcnn:SrcnnConfig",
    "edsr": "cxrsr_cli.networks.edsr:EdsrConfig",
    "rcan": "cxrsr_cli.networks.rcan:RcanConfig",
}
"""``module:class`` of each family's configuration. A family's module imports torch, so
that it is imported on first use."""

DEFAULT_FAMILY = "rir"

FAMILY_KEY = "network"
"""Names the family in a configuration and a header."""


def config_class(name: object) -> type[NetworkConfig]:
    """Import the configuration class of a family.

    Raises
    ------
    ValueError
        If there is no such family.
    """
    if not isinstance(name, str) or name not in FAMILIES:
        raise ValueError(f"{FAMILY_KEY} is '{name}'; it must be one of {', '.join(FAMILIES)}")
    module, _, class_name = FAMILIES[name].partition(":")
    found: type[NetworkConfig] = getattr(import_module(module), class_name)
    return found


def config_from_dict(plain: Mapping[str, Any]) -> NetworkConfig:
    """Read what `NetworkConfig.to_dict` wrote. Every field must be there.

    Parameters
    ----------
    plain : mapping
        Plain JSON types.

    Returns
    -------
    NetworkConfig
        Of the family that ``network`` names.

    Raises
    ------
    ValueError, TypeError
        If a field is unknown, missing or illegal.
    """
    if not isinstance(plain, Mapping):
        raise TypeError("an architecture is a mapping of keys to values")
    given = dict(plain)
    family = config_class(given.pop(FAMILY_KEY, None))
    for field in fields(family):
        if field.name not in given:
            raise ValueError(f"{field.name} is missing")
        value = given[field.name]
        if isinstance(field.type, type) and issubclass(field.type, StrEnum):
            given[field.name] = field.type(value)
        elif isinstance(value, list):
            given[field.name] = tuple(value)
    return family(**given)
