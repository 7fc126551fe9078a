"""What all associations of a node share."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from cxrsr_cli.common.validators import sanitize_ae_title
from cxrsr_cli.connections.dimse_status import DimseStatus
from cxrsr_cli.receive.config import ScpConfig
from cxrsr_cli.receive.rate_limiter import RateLimiter
from cxrsr_cli.receive.refusal import RefusalEvent, RefusalReason

if TYPE_CHECKING:
    from cxrsr_cli.receive.presentation_contexts import Supported

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedInstance:
    """An instance that a peer sent, whole on the disk, not acknowledged yet.

    Attributes
    ----------
    path : Path
        A file of the DICOM File Format in the spool's folder ``arriving``; its name is ours.
    data_set_at : int
        Offset of the data set in it.
    sop_instance_uid : str
        As in the data set, which was found to be the one announced.
    calling_ae, called_ae : str
        Application Entity titles of the association, without padding.
    address : str
        IP address of the peer.
    """

    path: Path
    dataset_offset: int
    sop_instance_uid: str
    calling_ae: str
    called_ae: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScpContext:
    """A node that receives.

    Attributes
    ----------
    listener : Listener
        Titles, peers and limits.
    folder : Path
        Where files are received.
    accept, said : callable
        Take instances and refusals.
    contexts : Supported
        What may be sent.
    pace : Pace
        Counts associations.
    stopping : Event
        Set when no new message is to be served.
    """

    config: ScpConfig
    folder: Path
    accept: Callable[[ReceivedInstance], DimseStatus]
    on_refusal: Callable[[RefusalEvent], None]
    contexts: "Supported"
    rate_limiter: RateLimiter
    stopping: Event

    def report(self, reason: RefusalReason, address: str, title: str = "") -> None:
        """Tell of a refusal; nobody's trouble with it may reach a peer."""
        try:
            self.on_refusal(RefusalEvent(reason, address, sanitize_ae_title(title)))
        except Exception as error:
            _LOG.warning("the callback for refusals raised %s", type(error).__name__)
