"""What the network side hands to the queue."""

from dataclasses import dataclass
from pathlib import Path


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
