"""Configuration of the SCP: address, allowed peers and limits."""

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
    """A peer that may send.

    Attributes
    ----------
    ae_title : str or None
        Required calling AE title; None for any.
    address : str or None
        Required IP address, or network in CIDR notation; None for any. One of the two
        must be given. ``0.0.0.0/0`` allows every address.
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
        """Tell whether the peer may connect from an IP address."""
        return self.address is None or _parse_ip(address) in ip_network(self.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScpLimits:
    """Limits for peers.

    Attributes
    ----------
    max_instance_bytes : int
        Limit of a data set, also after inflating.
    max_associations : int
        Simultaneous associations. Further ones are rejected, not queued.
    max_associations_per_minute : int or None
        Associations that one peer may open within any 60 seconds.
    idle_timeout : float
        Seconds from the connection to the end of the A-ASSOCIATE-RQ, between messages,
        and from the first to the last byte of a PDU.
    instance_timeout : float
        Seconds in which a message must be complete.
    association_timeout : float
        Seconds after which an association is ended, between two messages.
    min_free_bytes : int
        Disk space that stays free.
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
    """Configuration of an SCP.

    Attributes
    ----------
    ae_title : str
        Our AE title, which peers must call.
    address : str
        IP address or host name to listen on. The default is loopback, because DICOM
        without TLS neither authenticates nor encrypts. ``0.0.0.0`` stands for all IPv4
        addresses, ``::`` for all addresses.
    port : int
        TCP port. 11112 is registered for DICOM and needs no privilege; 0 is any free port.
    accept_any_called_ae : bool
        Whether peers may call other AE titles.
    peers : list of AllowedPeer
        Peers that may send. If empty, every peer on this machine may.
    limits : ScpLimits
        Limits for peers.
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
            return _parse_ip(address).is_loopback
        return any(peer.matches_address(address) for peer in self.peers)

    def is_allowed(self, address: str, calling_ae: str) -> bool:
        """Tell whether a peer with this address and calling AE title may send."""
        if not self.peers:
            return _parse_ip(address).is_loopback
        return any(
            peer.matches_address(address) and peer.ae_title in (None, calling_ae)
            for peer in self.peers
        )

    def lists_ae_title(self, calling_ae: str) -> bool:
        """Tell whether a calling AE title belongs to a listed peer."""
        return any(peer.ae_title == calling_ae for peer in self.peers)


def _parse_ip(address: str) -> IPv4Address | IPv6Address:
    """Parse an IP address; a dual-stack socket shows IPv4 addresses as IPv6."""
    parsed = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed
