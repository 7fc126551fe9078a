"""Configuration of a node, read from YAML and checked."""

import math
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import PlainValidator, TypeAdapter

from cxrsr_cli.common.backoff import RetryPolicy
from cxrsr_cli.common.validators import validate_port
from cxrsr_cli.common.yaml_config import ByteSize, load_yaml_mapping, validate
from cxrsr_cli.connections.destination import Destination
from cxrsr_cli.connections.tls import TlsConfig
from cxrsr_cli.errors import UsageError
from cxrsr_cli.receive.config import ScpConfig
from cxrsr_cli.send.folder import Folder
from cxrsr_cli.send.store import CStoreDestination
from cxrsr_cli.send.stow import StowDestination
from cxrsr_cli.serve.routing import RoutingRule, validate_rules

_FORBID: dict[str, Any] = {"extra": "forbid"}

_KINDS: dict[str, TypeAdapter[Any]] = {
    "store": TypeAdapter(CStoreDestination),
    "stow": TypeAdapter(StowDestination),
    "folder": TypeAdapter(Folder),
}


def _make_destination(plain: object) -> Destination:
    kind = plain.get("kind") if isinstance(plain, dict) else None
    if not isinstance(plain, dict) or not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"a destination needs a key 'kind', one of {', '.join(_KINDS)}")
    options = {name: value for name, value in plain.items() if name != "kind"}
    destination: Destination = _KINDS[kind].validate_python(options)
    return destination


AnyDestination = Annotated[Destination, PlainValidator(_make_destination)]
"""A destination of the class that its key ``kind`` names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthConfig:
    """Where the node answers requests for health and metrics.

    Attributes
    ----------
    port : int
        TCP port; 0 for any free port.
    address : str
        IPv4 loopback address.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    port: int
    address: str = "127.0.0.1"

    def __post_init__(self) -> None:
        """Raise ValueError for an address that other machines reach, or an illegal port."""
        address = ip_address(self.address)
        if not address.is_loopback:
            raise ValueError(
                f"{self.address} is not a loopback address; use a reverse proxy instead"
            )
        if not isinstance(address, IPv4Address):
            raise ValueError(f"address {self.address} is not IPv4; give one such as 127.0.0.1")
        validate_port(self.port, min_port=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """Configuration of a node.

    Attributes
    ----------
    spool : Path
        Folder of the node, on a local disk (`Spool`).
    scp : ScpConfig
        AE title and address of the node, allowed peers and limits.
    tls : TlsConfig or None
        Certificates. With them, every association must be encrypted.
    destinations : dict of str to Destination
        Destinations of outputs, by name.
    rules : tuple of RoutingRule
        Processing of objects; the first rule that matches counts.
    retry : RetryPolicy
        Retries of upscaling and of deliveries.
    device : str
        Device of the networks, as ``--device``.
    memory : int or None
        Memory for one image in bytes, as ``--memory``.
    health : HealthConfig or None
        Port for health and metrics.
    history_retention_days : float
        Days for which finished instances are remembered, so that they are not repeated.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    spool: Path
    destinations: dict[str, AnyDestination]
    rules: tuple[RoutingRule, ...]
    scp: ScpConfig = field(default_factory=ScpConfig)
    tls: TlsConfig | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    device: str = "auto"
    memory: ByteSize | None = None
    health: HealthConfig | None = None
    history_retention_days: float = 90.0

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot work."""
        if self.tls and not self.tls.certificate:
            raise ValueError("tls needs a certificate; remove tls for plain connections")
        if self.memory is not None and self.memory < 1:
            raise ValueError("memory must be at least 1")
        if not 0 <= self.history_retention_days < math.inf:
            raise ValueError("history_retention_days must be finite, and not negative")


_ADAPTER = TypeAdapter(ServeConfig)


def load_serve_config(path: Path) -> ServeConfig:
    """Read and check a YAML file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    ServeConfig
        The checked configuration.

    Raises
    ------
    ConfigError
        If the file cannot be read, a key is unknown, a value is illegal, or a rule
        names an unknown destination.
    """
    plain = _with_policy(load_yaml_mapping(path))
    config = validate(_ADAPTER, plain, path, allow_empty=False)
    validate_rules(config.rules, list(config.destinations))
    return config


def _with_policy(plain: dict[str, Any]) -> dict[str, Any]:
    """Give the options under ``policy`` to every rule that does not state them itself."""
    policy, rules = plain.get("policy"), plain.get("rules")
    if not isinstance(policy, dict) or not isinstance(rules, list):
        return plain
    merged = [
        rule
        if not isinstance(rule, dict)
        or rule.get("ignore")
        or not isinstance(rule.get("upscale", {}), dict)
        else {**rule, "upscale": {**policy, **rule.get("upscale", {})}}
        for rule in rules
    ]
    return {name: value for name, value in plain.items() if name != "policy"} | {"rules": merged}


def check_environment(config: ServeConfig) -> list[str]:
    """Check the certificates, secrets, folders and libraries that a configuration needs.

    Parameters
    ----------
    config : ServeConfig
        The configuration.

    Returns
    -------
    list of str
        Warnings about problems that may be temporary, such as a share that is not
        mounted; each names its destination.

    Raises
    ------
    UsageError
        If a file is missing or unusable; names the key and the file.
    MissingExtraError
        If a destination needs a library that is not installed.
    """
    if config.tls:
        try:
            config.tls.server_context()
        except UsageError as error:
            raise UsageError(f"tls: {error}") from None
    warnings = []
    for name, destination in config.destinations.items():
        try:
            warning = destination.check()
        except UsageError as error:
            raise type(error)(f"destinations.{name}: {error}") from None
        if warning:
            warnings.append(f"destinations.{name}: {warning}")
    return warnings
