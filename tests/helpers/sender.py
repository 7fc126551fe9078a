"""Send the files of a folder until each is acknowledged, as a modality does, and rename those.

In a process of its own: pynetdicom leaves a socket open for each connection that is refused.
"""

import sys
import time
from pathlib import Path

from pydicom.filereader import read_file_meta_info
from pynetdicom import AE

_SUCCESS = 0x0000


def send_all(port: int, files: list[Path]) -> None:
    """Send over one association after another, until none is left."""
    left = list(files)
    while left:
        ae = AE("PACS")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
        meta = read_file_meta_info(left[0])
        ae.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
        association = ae.associate("127.0.0.1", port, ae_title="CXRSR")
        if not association.is_established:
            time.sleep(0.2)
            continue
        while left and association.is_established:
            try:
                answer = association.send_c_store(left[0])
            except (RuntimeError, ValueError):
                break
            if answer.get("Status") != _SUCCESS:
                break
            sent = left.pop(0)
            sent.rename(sent.with_suffix(".sent"))
        if association.is_established:
            association.release()
        else:
            association.abort()


if __name__ == "__main__":
    send_all(int(sys.argv[1]), sorted(Path(sys.argv[2]).glob("*.dcm")))
