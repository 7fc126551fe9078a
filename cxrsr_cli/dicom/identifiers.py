"""How this software identifies itself in objects and on the network."""

from pydicom.uid import UID

from cxrsr_cli import __version__

MANUFACTURER = "cxrsr open-source project"
MODEL_NAME = "cxrsr"
"""Manufacturer's Model Name in Contributing Equipment Sequence: marks every output."""

IMPLEMENTATION_CLASS_UID = UID("2.25.227651433496037774089284416628961574554")
"""The same for every version of this software (PS3.7 D.3.3.2)."""
IMPLEMENTATION_VERSION_NAME = f"CXRSR_{__version__}"[:16]
"""Names this version (PS3.7 D.3.3.2), at most 16 characters."""
