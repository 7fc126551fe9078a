"""Where the node listens, to whom, and within which limits."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from cxrsr_cli.common.validators import (
    is_valid_host,
    validate_ae_titles,
    validate_port,
    validate_timeouts,
)
from cxrsr_cli.common.yaml_config import ByteSize


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedPeer:
    """Who may send.

    Attributes
    ----------
    ae_title : str or None
        Calling AE title that it must give; None for any.
    address : str or None
        IP address or network in CIDR notation that it must connect from; None for
        any. One of the two is needed: ``0.0.0.0/0`` says that all may send.
    """

    ae_title: str | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.ae_title is None and self.address is None:
            raise ValueError("a peer needs an ae_title, an address or both")
        if self.ae_title is not None:
            validate_ae_titles(ae_title=self.ae_title)
        if self.address is not None:
            try:
                ip_network(self.address)
            except ValueError as error:
                raise ValueError(f"peer's address: {error}") from None

    def matches_address(self, address: str) -> bool:
        """Tell whether it may connect from an IP address."""
        return self.address is None or _plain(address) in ip_network(self.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScpLimits:
    """What a peer may ask for.

    Attributes
    ----------
    instance_bytes : int
        Largest data set, also after it is inflated.
    associations : int
        At the same time. Further ones are rejected, not queued.
    per_minute : int or None
        Associations that one peer may open within any 60 seconds.
    idle : float
        Seconds: from connecting to the end of the A-ASSOCIATE-RQ, between messages,
        and from the first to the last byte of a PDU.
    instance_seconds : float
        Within which a message must be whole.
    association_seconds : float
        After which an association is ended, between two messages.
    free_bytes : int
        Disk space that is left free.
    """

    max_instance_bytes: ByteSize = 1 << 30
    max_associations: int = 16
    max_associations_per_minute: int | None = None
    idle_timeout: float = 30.0
    instance_timeout: float = 600.0
    association_timeout: float = 3600.0
    min_free_bytes: ByteSize = 1 << 30

    def __post_init__(self) -> None:
        if self.max_instance_bytes < 1 or self.max_associations < 1:
            raise ValueError("max_instance_bytes and max_associations must be at least 1")
        if self.max_associations_per_minute is not None and self.max_associations_per_minute < 1:
            raise ValueError("max_associations_per_minute must be at least 1")
        if self.min_free_bytes < 0:
            raise ValueError("min_free_bytes cannot be negative")
        validate_timeouts(
            idle_timeout=self.idle_timeout,
            instance_timeout=self.instance_timeout,
            association_timeout=self.association_timeout,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScpConfig:
    """A place where peers connect.

    Attributes
    ----------
    ae_title : str
        Ours, which peers must call.
    address : str
        IP address or name to listen on. The default is loopback: DICOM without TLS
        knows neither who sends nor hides what is sent, so to be reachable from other
        machines is for the user to decide. ``0.0.0.0`` is every IPv4 address, ``::`` every one.
    port : int
        11112 is registered for DICOM, and needs no privilege. 0 lets the system choose.
    any_called_ae : bool
        Whether peers may call another title.
    peers : list of Peer
        Who may send. If empty: who connects from this machine, with any title.
    limits : Limits
        What each may ask for.
    """

    ae_title: str = "CXRSR"
    address: str = "127.0.0.1"
    port: int = 11112
    accept_any_called_ae: bool = False
    peers: list[AllowedPeer] = field(default_factory=list)
    limits: ScpLimits = field(default_factory=ScpLimits)

    def __post_init__(self) -> None:
        validate_ae_titles(ae_title=self.ae_title)
        if not is_valid_host(self.address):
            raise ValueError("address must be an IP address or a name")
        validate_port(self.port, min_port=0)

    def address_allowed(self, address: str) -> bool:
        """Tell whether any peer may connect from an IP address."""
        if not self.peers:
            return _plain(address).is_loopback
        return any(peer.matches_address(address) for peer in self.peers)

    def is_allowed(self, address: str, title: str) -> bool:
        """Tell whether a peer of this address and calling AE title may send."""
        if not self.peers:
            return _plain(address).is_loopback
        return any(
            peer.matches_address(address) and peer.ae_title in (None, title) for peer in self.peers
        )

    def lists_ae_title(self, title: str) -> bool:
        """Tell whether a calling AE title is one of those listed."""
        return any(peer.ae_title == title for peer in self.peers)


def _plain(address: str) -> IPv4Address | IPv6Address:
    """Read an IP address; one of IPv4 also where a socket for both shows it as IPv6."""
    plain = ip_address(address.partition("%")[0])
    if isinstance(plain, IPv6Address) and plain.ipv4_mapped is not None:
        return plain.ipv4_mapped
    return plain
