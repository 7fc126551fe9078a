"""Text of patient and study keeps the source's bytes in every character set and encoding."""

import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.dicom.transfer_syntax import OutputTransferSyntax, resolve_transfer_syntax
from cxrsr_cli.dicom.write import write_dicom
from tests.derive.test_derive import derived_from

# Names of PS3.5 annexes H to K, and what real files hold.
TEXTS = {
    "Japanese": ("\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
    "Japanese katakana": (
        "ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
    ),
    "Korean": ("\\ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7"),
    "Cyrillic": ("ISO_IR 144", "\u041b\u044e\u043ace\u043c\u0431yp\u0433".encode("iso8859-5")),
    "Arabic": ("ISO_IR 127", "\u0642\u0628\u0627\u0646\u064a".encode("iso8859-6")),
    "Greek": (
        "ISO_IR 126",
        "\u0394\u03b9\u03bf\u03bd\u03c5\u03c3\u03b9\u03bf\u03c2".encode("iso8859-7"),
    ),
    "Chinese": ("GB18030", "Wang^XiaoDong=\u738b^\u5c0f\u4e1c".encode("gb18030")),
    "Chinese of old software": ("ISO 2022 GBK", "Wang=\u738b^\u5c0f\u4e1c".encode("gbk")),
    "Unicode": ("ISO_IR 192", "Wang^XiaoDong=\u738b^\u5c0f\u6771 \U0001f9b4".encode()),
    "illegal in Unicode": ("ISO_IR 192", b"\xff\xfe\x80 illegal"),
    "illegal in Japanese": ("\\ISO 2022 IR 87", b"Yamada=\x1b$B;\x1b"),
    "no such character set": ("ISO_IR 999", b"\xe9\xff\x80 somebody"),
    "not ASCII, and no character set": ("", b"M\xfcller"),
}
WRITTEN = ("PatientName", "PatientComments", "ReferringPhysicianName", "StudyDescription")


def with_text(chest: FileDataset, syntax: UID, character_set: str, text: bytes) -> bytes:
    """Return a file with `text` in patient and study, in a sequence and in a private element."""
    even = text + b" " * (len(text) % 2)
    placeholder = "#" * len(even)
    for keyword in WRITTEN:
        setattr(chest, keyword, placeholder)
    code = Dataset()
    code.CodeMeaning = placeholder
    chest.ProcedureCodeSequence = Sequence([code])
    chest.private_block(0x0009, "SIEMENS MED", create=True).add_new(0x10, "LO", placeholder)
    if character_set:
        chest.SpecificCharacterSet = character_set.split("\\")
    chest.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        chest.PixelData = np.frombuffer(chest.PixelData, "<u2").astype(">u2").tobytes()
    file = BytesIO()
    with quiet_libraries():
        pydicom.dcmwrite(
            file, chest, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian
        )
    meta, body = split(file.getvalue())
    assert body.count(placeholder.encode()) == len(WRITTEN) + 2
    body = body.replace(placeholder.encode(), even)
    if syntax.is_deflated:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = packer.compress(body) + packer.flush()
    return meta + body + b"\0" * (len(body) % 2)


def split(file: bytes) -> tuple[bytes, bytes]:
    """Return preamble with meta information, and the data set, inflated."""
    start = 144 + int.from_bytes(file[140:144], "little")
    deflated = DeflatedExplicitVRLittleEndian.encode() in file[:start]
    body = zlib.decompress(file[start:], -zlib.MAX_WBITS) if deflated else file[start:]
    return file[:start], body


@pytest.mark.parametrize(
    ("syntax", "wanted"),
    [
        (ImplicitVRLittleEndian, OutputTransferSyntax.SAME),
        (ImplicitVRLittleEndian, OutputTransferSyntax.EXPLICIT),
        (ImplicitVRLittleEndian, OutputTransferSyntax.JPEGLS),
        (ExplicitVRLittleEndian, OutputTransferSyntax.SAME),
        (DeflatedExplicitVRLittleEndian, OutputTransferSyntax.SAME),
        (ExplicitVRBigEndian, OutputTransferSyntax.SAME),
    ],
    ids=lambda value: value.keyword if isinstance(value, UID) else str(value),
)
@pytest.mark.parametrize("language", TEXTS)
def test_text_keeps_its_bytes(
    chest: FileDataset, tmp_path: Path, language: str, syntax: UID, wanted: OutputTransferSyntax
) -> None:
    """Also if the bytes are illegal in the stated character set, or the set is unknown."""
    chest.PixelData = chest.pixel_array[:16, :16].tobytes()
    chest.Rows = chest.Columns = 16
    character_set, text = TEXTS[language]
    source, target = tmp_path / "in.dcm", tmp_path / "out.dcm"
    source.write_bytes(with_text(chest, syntax, character_set, text))
    derived, _ = derived_from(source)
    pixels = decode(read_source(source)).repeat(4, 1).repeat(4, 2)
    write_dicom(derived, pixels, target, syntax=resolve_transfer_syntax(wanted, syntax))
    _, body = split(target.read_bytes())
    assert body.count(text) == len(WRITTEN) + 2
    with quiet_libraries():
        before, after = pydicom.dcmread(source), pydicom.dcmread(target)
        for keyword in (*WRITTEN, "SpecificCharacterSet"):
            assert after.get(keyword) == before.get(keyword), keyword
