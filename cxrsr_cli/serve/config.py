"""The node's configuration: YAML in, checked dataclasses out."""

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, PlainValidator, TypeAdapter

from cxrsr_cli.bytesize import parse_bytes
from cxrsr_cli.configuration import checked, read_mapping
from cxrsr_cli.receive.listener import Listener
from cxrsr_cli.send.destination import Destination
from cxrsr_cli.send.folder import Folder
from cxrsr_cli.send.store import StoreScp
from cxrsr_cli.send.stow import StowService
from cxrsr_cli.send.tls import TlsFiles
from cxrsr_cli.serve.retry import Retry
from cxrsr_cli.serve.rules import Rule, check_names

_FORBID: dict[str, Any] = {"extra": "forbid"}

_KINDS: dict[str, TypeAdapter[Any]] = {
    "store": TypeAdapter(StoreScp),
    "stow": TypeAdapter(StowService),
    "folder": TypeAdapter(Folder),
}


def _of_its_kind(plain: object) -> Destination:
    if not isinstance(plain, dict) or plain.get("kind") not in _KINDS:
        raise ValueError(f"a destination has a key 'kind', one of {', '.join(_KINDS)}")
    given = {name: value for name, value in plain.items() if name != "kind"}
    made: Destination = _KINDS[plain["kind"]].validate_python(given)
    return made


AnyDestination = Annotated[Destination, PlainValidator(_of_its_kind)]
"""Of the class that its key ``kind`` names."""

Bytes = Annotated[
    int, BeforeValidator(lambda given: parse_bytes(given) if isinstance(given, str) else given)
]
"""A number, or a size such as ``4GiB``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Where the node says how it is.

    Attributes
    ----------
    port : int
        0 for any.
    address : str
        Of loopback.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    port: int
    address: str = "127.0.0.1"

    def __post_init__(self) -> None:
        """Refuse to tell the hospital's network."""
        if not ip_address(self.address).is_loopback:
            raise ValueError(f"{self.address} is not on loopback; put a proxy before it instead")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """All of a node.

    Attributes
    ----------
    spool : Path
        Its own folder, on a local disk (`Spool`).
    listen : Listener
        Where, as whom, and whom it listens to.
    tls : TlsFiles or None
        With it, associations are encrypted, and without them none is accepted.
    destinations : dict of str to Destination
        Where outputs can go.
    rules : tuple of Rule
        What is done with which object; the first that holds.
    retry : Retry
        When what failed is tried again.
    device : str
        Where the networks run, as ``--device``.
    memory : int or None
        Bytes that the work on one image may take, as ``--memory``.
    health : Health or None
        A port that tells how the node is.
    history_days : float
        How long instances are known after they are done, so that they are not done again.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    spool: Path
    destinations: dict[str, AnyDestination]
    rules: tuple[Rule, ...]
    listen: Listener = field(default_factory=Listener)
    tls: TlsFiles | None = None
    retry: Retry = field(default_factory=Retry)
    device: str = "auto"
    memory: Bytes | None = None
    health: Health | None = None
    history_days: float = 90.0


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
    config = checked(_ADAPTER, read_mapping(path), path)
    check_names(config.rules, list(config.destinations))
    return config
