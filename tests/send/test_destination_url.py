"""DESTINATION on the command line: its forms, and the options that each one takes."""

from pathlib import Path

import pytest

from cxrsr_cli.connections.tls import TlsConfig
from cxrsr_cli.errors import UsageError
from cxrsr_cli.send.destination_url import SendOptions, parse_destination

DICOM, WEB = "dicom://PEER@localhost:104", "https://localhost"
FILE = Path("file")
WRONG = [
    ("PEER@localhost:104", SendOptions(), "DESTINATION is not dicom://"),
    ("dicom://localhost:104", SendOptions(), "DESTINATION is not dicom://"),
    ("dicom://PEER@localhost", SendOptions(), "DESTINATION is not dicom://"),
    ("dicom://PEER:hunter2@localhost:104", SendOptions(), "DESTINATION is not dicom://"),
    ("dicom://PEER@localhost:hunter2", SendOptions(), "DESTINATION is not dicom://"),
    ("dicom://PEER@[hunter2", SendOptions(), "DESTINATION is not dicom://"),
    ("dicom://PEER@localhost:104/path", SendOptions(), "must end with its port"),
    ("dicom://SEVENTEEN_LETTERS@localhost:104", SendOptions(), "called_ae must be 1 to 16"),
    (DICOM, SendOptions(tls=TlsConfig(ca_file=FILE)), "need dicoms://"),
    (DICOM, SendOptions(token_file=FILE), "are for DICOMweb"),
    (DICOM, SendOptions(commitment_port=1), "need --commitment"),
    (DICOM, SendOptions(timeout=0), "timeout"),
    (DICOM, SendOptions(storage_commitment=True, commitment_timeout=0), "commit"),
    ("https://me:hunter2@localhost", SendOptions(), "not contain a user or password"),
    ("http://pacs.example", SendOptions(token_file=FILE), "needs https://"),
    (WEB, SendOptions(calling_ae="X"), "not for DICOMweb"),
    (WEB, SendOptions(storage_commitment=True), "not for DICOMweb"),
    (WEB, SendOptions(timeout=-1), "timeout"),
]


@pytest.mark.parametrize(("destination", "options", "words"), WRONG)
def test_an_invalid_destination_is_not_quoted(
    destination: str, options: SendOptions, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        parse_destination(destination, options)
    assert "hunter2" not in str(caught.value)
