"""The node's configuration: YAML in, checked dataclasses out."""

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


def _of_its_kind(plain: object) -> Destination:
    kind = plain.get("kind") if isinstance(plain, dict) else None
    if not isinstance(plain, dict) or not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"a destination has a key 'kind', one of {', '.join(_KINDS)}")
    given = {name: value for name, value in plain.items() if name != "kind"}
    made: Destination = _KINDS[kind].validate_python(given)
    return made


AnyDestination = Annotated[Destination, PlainValidator(_of_its_kind)]
"""Of the class that its key ``kind`` names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthConfig:
    """Where the node says how it is.

    Attributes
    ----------
    port : int
        0 for any.
    address : str
        Of loopback, IPv4.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    port: int
    address: str = "127.0.0.1"

    def __post_init__(self) -> None:
        """Refuse to tell the hospital's network."""
        address = ip_address(self.address)
        if not address.is_loopback:
            raise ValueError(f"{self.address} is not on loopback; put a proxy before it instead")
        if not isinstance(address, IPv4Address):
            raise ValueError(f"address {self.address} is not IPv4; give one such as 127.0.0.1")
        validate_port(self.port, min_port=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """All of a node.

    Attributes
    ----------
    spool : Path
        Its own folder, on a local disk (`Spool`).
    scp : ScpConfig
        Where, as whom, and whom it listens to.
    tls : TlsConfig or None
        With it, associations are encrypted, and without them none is accepted.
    destinations : dict of str to Destination
        Where outputs can go.
    rules : tuple of RoutingRule
        What is done with which object; the first that holds.
    retry : RetryPolicy
        When what failed is tried again.
    device : str
        Where the networks run, as ``--device``.
    memory : int or None
        Bytes that the work on one image may take, as ``--memory``.
    health : HealthConfig or None
        A port that tells how the node is.
    history_retention_days : float
        How long instances are known after they are done, so that they are not done again.
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
        """Refuse what cannot be meant."""
        if self.tls and not self.tls.certificate:
            raise ValueError("tls needs a certificate; leave tls out for none")
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
        If the file cannot be read, a key is unknown or its value illegal, or a rule
        sends to no destination.
    """
    config = validate(_ADAPTER, load_yaml_mapping(path), path, allow_empty=False)
    validate_rules(config.rules, list(config.destinations))
    return config


def check_environment(config: ServeConfig) -> list[str]:
    """Look at what a configuration names: files of TLS, secrets, folders, libraries.

    Parameters
    ----------
    config : ServeConfig
        As read.

    Returns
    -------
    list of str
        What is amiss but can pass, such as a share that is not mounted, each with the
        name of its destination.

    Raises
    ------
    UsageError
        Naming the key, and a file that is missing or not what it should be.
    MissingExtraError
        If a library is not installed that a destination needs.
    """
    if config.tls:
        try:
            config.tls.server_context()
        except UsageError as error:
            raise UsageError(f"tls: {error}") from None
    amiss = []
    for name, destination in config.destinations.items():
        try:
            told = destination.check()
        except UsageError as error:
            raise type(error)(f"destinations.{name}: {error}") from None
        if told:
            amiss.append(f"destinations.{name}: {told}")
    return amiss
