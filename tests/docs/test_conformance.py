"""The conformance statement promises what the code does: no more and no less."""

import contextlib
import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels.encoders.base import get_encoder
from pydicom.sequence import Sequence
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr.codedict import codes
from pydicom.tag import BaseTag
from pydicom.uid import (
    JPEG2000,
    UID,
    AllTransferSyntaxes,
    ExplicitVRLittleEndian,
    JPEGLSNearLossless,
)
from pynetdicom import AE

from cxrsr_cli import __version__
from cxrsr_cli.common.byte_size import parse_byte_size
from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.connections.dimse_status import DimseStatus, classify_status
from cxrsr_cli.connections.tls import TlsConfig
from cxrsr_cli.derive.derive import is_modified
from cxrsr_cli.derive.geometry import PIXEL_GEOMETRY, PixelGeometryAttribute, ScalingRule
from cxrsr_cli.dicom.acceptance import AcceptanceOverride, check_acceptance
from cxrsr_cli.dicom.body_part import CODES, BodyPart, Region, stated_body_part
from cxrsr_cli.dicom.codecs import LOSSY_METHODS, find_decoder
from cxrsr_cli.dicom.identifiers import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from cxrsr_cli.dicom.transfer_syntax import OutputTransferSyntax, resolve_transfer_syntax
from cxrsr_cli.errors import UndecodablePixelDataError, UnsupportedImageError
from cxrsr_cli.receive.config import ScpConfig
from cxrsr_cli.receive.presentation_contexts import storage_classes, supported_contexts
from cxrsr_cli.receive.refusal import ABORTS, REJECTIONS, STATUSES, RefusalReason
from cxrsr_cli.receive.storage_scp import StorageScp
from cxrsr_cli.send.association import make_ae
from cxrsr_cli.send.file_header import FALLBACK_SYNTAXES
from cxrsr_cli.send.store import CStoreDestination
from cxrsr_cli.send.stow import StowDestination, _classify_http_status
from cxrsr_cli.send.stow_client import MultipartRelatedFile
from cxrsr_cli.serve.config import ServeConfig
from tests.conftest import ROOT, Command
from tests.derive.test_derive import derived_from, saved

STATEMENT = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")

Row = dict[str, str]


def rows(*columns: str) -> list[Row]:
    """Read all tables that have these columns."""
    found = []
    for table in re.findall(r"(?:^\|.*\|\n)+", STATEMENT, re.MULTILINE):
        header, _, *body = [
            [cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()
        ]
        if header == list(columns):
            found += [dict(zip(header, cells, strict=True)) for cells in body]
    assert found, columns
    return found


# Order


TEMPLATE = """
1 Overview
1.1 Content and Transfer
1.2 DIMSE Services
1.3 DICOM Web Services
1.4 Media Services
1.5 Real-Time Video Services
1.6 De-identification Profiles
1.7 Specific Character Sets
2 Table of Contents
3 Introduction
3.1 Revision History
3.2 Audience
3.3 Remarks
3.4 Terms and Definitions
3.5 Abbreviations
3.6 References
4 Implementation Model
4.1 Application Entities and Data Flow
5 Service and Interoperability Description
5.1 Mapping of Services to Application Entities
5.2 DIMSE Services
5.3 DICOM Web Services
5.4 Media Services
5.5 Real-Time Video Services
5.6 Cross-Service Considerations
5.7 Specific Character Sets
6 Configuration
6.1 General Configuration Parameters
6.2 Configuration of DIMSE Services
6.3 Configuration of DICOM Web Services
6.4 Configuration of Media Storage Service
6.5 Configuration of Real-Time Video Service
6.6 Configuration of Audit Trail
7 Network and Media Communication Details
7.1 General
7.2 Specifications
7.3 Status Codes
8 Security
8.1 Introduction
8.2 External Network Requirements
8.3 TCP Port Configuration
8.4 DICOM Security Profiles Support
8.5 User Identity Negotiation Support
8.6 Web Services Security Features
8.7 Other Security Features
A.A Information Object Definitions (IODs)
A.A.1 Information Shared Across Multiple IODs
A.A.2 Derived Image IODs
A.B Structured Report Content Encoding
A.C Security Details
A.D Mapping of Attributes
A.E Code Set Usage
""".strip().splitlines()
"""Sections of PS3.2 annex N, whose N.9 to N.13 call themselves A.A to A.E; A.A.2 on are ours."""


def test_the_statement_has_the_sections_of_the_template_in_order() -> None:
    headings = re.findall(r"^##{1,2} (.+)$", STATEMENT, re.MULTILINE)
    assert [heading.removesuffix(" - N/A") for heading in headings] == TEMPLATE


def test_a_section_that_does_not_apply_says_so_in_title_and_text() -> None:
    sections = re.findall(r"^##{1,2} (.+)\n\n(.+)$", STATEMENT, re.MULTILINE)
    for heading, text in sections:
        assert heading.endswith(" - N/A") == text.startswith("N/A"), heading


def test_the_statement_names_the_current_version() -> None:
    assert f"| version | {__version__} |" in STATEMENT
    assert IMPLEMENTATION_CLASS_UID in STATEMENT


def test_the_table_of_contents_leads_to_every_main_section() -> None:
    headings = re.findall(r"^## (.+)$", STATEMENT, re.MULTILINE)
    links = dict(re.findall(r"^- \[(.+)\]\(#(.+)\)$", STATEMENT, re.MULTILINE))
    slugs = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
    assert list(links) == [heading.removesuffix(" - N/A") for heading in headings]
    assert list(links.values()) == slugs


def test_every_reference_is_listed_and_every_listed_one_is_used() -> None:
    listed = [row["number"] for row in rows("number", "reading")]
    assert listed == [f"R{number}" for number in range(1, len(listed) + 1)]
    assert set(re.findall(r"\*[Rr]eading\* (R\d+)", STATEMENT)) == set(listed)


# Content and transfer


def test_the_transfer_syntaxes_that_are_read_are_stated() -> None:
    stated = {
        row["UID"]: set(re.findall(r"\w+(?= \(|,|$)", row["decoded by"]))
        for row in rows("transfer syntax", "UID", "decoded by", "lossy method")
    }
    assert set(stated) == {str(syntax) for syntax in AllTransferSyntaxes if _is_decoded(syntax)}
    for uid, codecs in stated.items():
        decoder = find_decoder(UID(uid))
        assert codecs == set(decoder.available_plugins or ("pydicom",)), uid


def _is_decoded(syntax: UID) -> bool:
    try:
        find_decoder(syntax)
    except UndecodablePixelDataError:
        return False
    return True


def test_the_transfer_syntaxes_that_may_be_lossy_are_stated() -> None:
    stated = rows("transfer syntax", "UID", "decoded by", "lossy method")
    lossy = {row["UID"]: row["lossy method"] for row in stated if row["lossy method"]}
    read = {row["UID"] for row in stated}
    assert lossy == {uid: method for uid, method in LOSSY_METHODS.items() if uid in read}


def test_the_transfer_syntaxes_that_are_written_are_stated() -> None:
    stated = {
        row["UID"]: row["other names"].strip("`")
        for row in rows("transfer syntax", "UID", "other names", "encoded by")
    }
    written = {
        str(resolve_transfer_syntax(OutputTransferSyntax.SAME, UID(syntax))): ""
        for syntax in AllTransferSyntaxes
    } | {
        str(resolve_transfer_syntax(wanted, UID("1.2.840.10008.1.2"))): wanted.value
        for wanted in OutputTransferSyntax
        if wanted is not OutputTransferSyntax.SAME
    }
    assert stated == written


def test_the_codecs_that_encode_are_stated() -> None:
    for row in rows("transfer syntax", "UID", "other names", "encoded by"):
        syntax = UID(row["UID"])
        codecs = get_encoder(syntax).available_plugins if syntax.is_encapsulated else ("pydicom",)
        assert set(row["encoded by"].split(", ")) == set(codecs)


@pytest.mark.parametrize(
    "columns",
    [
        ("transfer syntax", "UID", "decoded by", "lossy method"),
        ("transfer syntax", "UID", "other names", "encoded by"),
    ],
    ids=["read", "written"],
)
def test_transfer_syntaxes_have_the_standards_names(columns: tuple[str, ...]) -> None:
    for row in rows(*columns):
        assert UID(row["UID"]).name == row["transfer syntax"]


ACCEPTED = (
    "SOP Class", "UID", "Modality", "accepted", "create", "display", "process", "archive"
)  # fmt: skip


def test_the_accepted_sop_classes_are_stated(chest: FileDataset) -> None:
    """Of all storage SOP Classes, under any Modality."""
    wrong = []
    for uid, (name, kind, *_) in UID_dictionary.items():
        if kind != "SOP Class" or "Storage" not in name:
            continue
        for modality in ("CR", "DX", "RG", "OT", "MG", ""):
            chest.SOPClassUID, chest.Modality = uid, modality
            stated = _stated_permission(uid, modality)
            if _needed_permission(chest) != stated:
                wrong.append((name, modality, stated))
    assert wrong == []


def _stated_permission(uid: str, modality: str) -> str:
    for row in rows(*ACCEPTED):
        right = row["Modality"] in ("any", "other") or modality in row["Modality"].split(", ")
        if row["UID"] in (uid, "any other") and right:
            return row["accepted"].strip("`")
    return ""


def _needed_permission(dataset: Dataset) -> str:
    for permission in ("always", *AcceptanceOverride):
        allowed = {permission} if isinstance(permission, AcceptanceOverride) else set()
        try:
            check_acceptance(dataset, 4, frozenset(allowed))
        except UnsupportedImageError:
            continue
        return str(permission)
    return "never"


def test_sop_classes_have_the_standards_names() -> None:
    for row in rows(*ACCEPTED)[:-1]:
        assert UID(row["UID"]).name == row["SOP Class"]


def test_every_override_of_the_acceptance_is_stated() -> None:
    stated = [row["permission"].strip("`") for row in rows("permission", "what it lets in")]
    assert stated == list(AcceptanceOverride)


# Attributes


WRITTEN = ("keyword", "tag", "VR", "presence", "source", "value")
REMOVED = ("keyword", "tag", "VR", "why")
REFUSED = ("keyword", "tag", "VR", "refused as")

CURVE = "Curve"
"""Stands for every element of groups 5000 to 50FE."""

VALUES: dict[str, Any] = {
    "AE": "AE", "AS": "001Y", "AT": 0x00280010, "CS": "X", "DA": "20200101", "DS": "1.5",
    "DT": "20200101", "FD": 1.5, "FL": 1.5, "IS": "3", "LO": "text", "LT": "text", "OB": b"\0\0",
    "OD": bytes(8), "OF": bytes(4), "OL": bytes(4), "OV": bytes(8), "OW": b"\0\0", "PN": "A^B",
    "SH": "text", "SL": 3, "SS": 3, "ST": "text", "SV": 3, "TM": "120000", "UC": "text",
    "UI": "1.2.3", "UL": 3, "UN": b"\0\0", "UR": "urn:x", "US": 3, "UT": "text", "UV": 3,
}  # fmt: skip
"""One for each value representation."""


def fill(dataset: Dataset, tag: int, vr: str, multiplicity: str) -> None:
    """Add an element with some value, unless it is there."""
    if tag in dataset:
        return
    vr = vr.split(" or ", maxsplit=1)[0]
    if vr == "SQ":
        value: Any = Sequence([Dataset()])
    else:
        count = int(re.findall(r"\d+", multiplicity)[0])
        value = VALUES[vr] if count == 1 else [VALUES[vr]] * count
    dataset.add_new(tag, vr, value)


def fill_nested(dataset: Dataset, line: PixelGeometryAttribute) -> None:
    for keyword in line.within:
        dataset = dataset[keyword].value[0]
    tag = tag_for_keyword(line.keyword)
    assert tag is not None
    fill(dataset, tag, dictionary_VR(tag), "2")


def with_every_attribute(chest: FileDataset) -> None:
    """Add all that the data dictionary knows and is not refused, an overlay and a curve."""
    refused = {
        line.keyword
        for line in PIXEL_GEOMETRY
        if line.rule is ScalingRule.REFUSE and not line.within
    }
    of_another_image = {"FloatPixelData", "DoubleFloatPixelData"} | refused
    chest.SpecificCharacterSet = "ISO_IR 100"
    chest.TimezoneOffsetFromUTC = "+0000"
    chest.NumberOfFrames = 1
    for element, vr, value in (
        (0x0010, "US", 256), (0x0011, "US", 256), (0x0015, "IS", 1), (0x0050, "SS", [2, 3]),
        (0x0100, "US", 1), (0x0102, "US", 0), (0x3000, "OW", bytes(256 * 256 // 8)),
    ):  # fmt: skip
        chest.add_new((0x6000, element), vr, value)
    for tag, (vr, multiplicity, _, _, keyword) in DicomDictionary.items():
        special = tag >> 16 in (0x0000, 0x0002, 0xFFFE) or keyword in of_another_image
        if keyword and not special:
            fill(chest, tag, vr, multiplicity)
    for line in PIXEL_GEOMETRY:
        if line.within and line.rule is not ScalingRule.REFUSE:
            fill_nested(chest, line)
    for mask, (vr, multiplicity, *_) in RepeatersDictionary.items():
        if mask.startswith(("50xx", "60xx")):
            fill(chest, int(mask.replace("xx", "00"), 16), vr, multiplicity)
    block = chest.private_block(0x0009, "TEST", create=True)
    block.add_new(0x01, "LO", "private")


def with_every_meta_element_and_lossy(chest: FileDataset) -> None:
    """Make the source lossy by its transfer syntax alone."""
    for tag, (vr, multiplicity, *_) in DicomDictionary.items():
        if tag >> 16 == 0x0002:
            fill(chest.file_meta, tag, vr, multiplicity)
    del chest.LossyImageCompression
    chest.compress(JPEGLSNearLossless, jls_error=2, generate_instance_uid=False)


def with_an_overlay_in_unused_bits(chest: FileDataset) -> None:
    """Of two frames."""
    chest.NumberOfFrames = 2
    chest.PixelData *= 2
    for element, vr, value in (
        (0x0010, "US", 256), (0x0011, "US", 256), (0x0040, "CS", "G"), (0x0050, "SS", [1, 1]),
        (0x0100, "US", 16), (0x0102, "US", 13),
    ):  # fmt: skip
        chest.add_new((0x6000, element), vr, value)


def with_the_least(chest: FileDataset) -> None:
    """Leave what an image cannot be read without."""
    needed = {
        "SOPClassUID", "SOPInstanceUID", "SamplesPerPixel", "PhotometricInterpretation", "Rows",
        "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData",
    }  # fmt: skip
    for tag in list(chest.keys()):
        if keyword_for_tag(tag) not in needed:
            del chest[tag]


Pair = tuple[FileDataset, FileDataset]


def derive_from(prepare: Callable[[FileDataset], None], folder: Path) -> Pair:
    """Give source and output, both as read from files."""
    chest = pydicom.dcmread(ROOT / "examples" / "chest-256.dcm")
    with quiet_libraries():
        prepare(chest)
        path = saved(chest, folder / "in.dcm")
        derived, _ = derived_from(path, noise_reduction=0.3)
        return pydicom.dcmread(path), pydicom.dcmread(saved(derived, folder / "out.dcm"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    """Derive from sources that together show every change."""
    folder = tmp_path_factory.mktemp("conformance")
    prepared = (
        with_every_attribute,
        with_every_meta_element_and_lossy,
        with_an_overlay_in_unused_bits,
    )
    return [derive_from(prepare, folder) for prepare in prepared]


def name(tag: BaseTag) -> str:
    """Return the keyword of an element, of an overlay in any group."""
    return CURVE if tag.group >> 8 == 0x50 else keyword_for_tag(tag)


def written(source: FileDataset, derived: FileDataset) -> Iterator[str]:
    """Yield the keyword of every element that is new or has another value."""
    for tag in derived.keys():
        if tag not in source or source[tag] != derived[tag]:
            yield from _with_items(derived[tag], "")


def _with_items(element: pydicom.DataElement, path: str) -> Iterator[str]:
    """Yield an element, and what is in the last of its items."""
    path += name(BaseTag(element.tag))
    yield path
    if element.VR == "SQ":
        for nested in element.value[-1]:
            yield from _with_items(nested, f"{path} > ")


def stated_as_written() -> dict[str, Row]:
    return by_path(rows(*WRITTEN))


def by_path(table: list[Row]) -> dict[str, Row]:
    """Key rows by the keywords of the sequences that they lie in, and their own."""
    path: list[str] = []
    stated = {}
    for row in table:
        depth = row["keyword"].count(">")
        path[depth:] = [row["keyword"].lstrip(">")]
        stated[" > ".join(path)] = row
    return stated


def test_the_statement_lists_exactly_the_attributes_that_are_written(pairs: list[Pair]) -> None:
    found: set[str] = set()
    with quiet_libraries():
        for source, derived in pairs:
            found.update(written(source, derived))
            found.update(name(tag) for tag in derived.file_meta.keys())
    assert found == set(stated_as_written())


def test_the_statement_lists_exactly_the_attributes_that_are_removed(pairs: list[Pair]) -> None:
    found: set[str] = set()
    for source, derived in pairs:
        found.update(name(tag) for tag in source.keys() if tag not in derived)
        found.update(name(tag) for tag in source.file_meta.keys() if tag not in derived.file_meta)
    assert found == {row["keyword"] for row in rows(*REMOVED)}


def test_attributes_stated_as_always_present_need_nothing_in_the_source(tmp_path: Path) -> None:
    stated = {
        path: row
        for path, row in stated_as_written().items()
        if ">" not in path and not row["tag"].startswith("(0002")
    }
    _, derived = derive_from(with_the_least, tmp_path)
    present = {name(tag) for tag in derived.keys()}
    always = {path for path, row in stated.items() if row["presence"] == "ALWAYS"}
    assert always == present & set(stated)


@pytest.mark.parametrize("accepted", rows(*ACCEPTED)[:4], ids=lambda row: row["SOP Class"])
def test_attributes_stated_as_always_present_are_in_the_iod(accepted: Row) -> None:
    """So that an output is of a Standard SOP Class, without extensions of ours."""
    standard = pytest.importorskip("highdicom._standard_utils")
    for path, row in stated_as_written().items():
        if row["presence"] == "ALWAYS" and ">" not in path and not row["tag"].startswith("(0002"):
            assert standard.is_attribute_in_iod(path, accepted["UID"]), path


@pytest.mark.parametrize(
    "columns", [WRITTEN, REMOVED, REFUSED], ids=["written", "removed", "refused"]
)
def test_tags_and_value_representations_are_the_dictionarys(
    columns: tuple[str, ...],
) -> None:
    for row in rows(*columns):
        if row["keyword"] == CURVE:
            continue
        tag = int(re.sub(r"[(),]", "", row["tag"].replace("xx", "00")), 16)
        assert keyword_for_tag(tag) == row["keyword"].lstrip(">")
        assert dictionary_VR(tag) == row["VR"], row["keyword"]


def test_the_stated_fixed_values_are_written(pairs: list[Pair]) -> None:
    _, derived = pairs[0]
    for path, row in stated_as_written().items():
        if row["source"] == "FIXED" and "`" in row["value"]:
            assert str(_value(derived, path)) == row["value"].split("`")[1], path


def _value(derived: FileDataset, path: str) -> object:
    dataset: Dataset = derived
    *sequences, last = path.split(" > ")
    for keyword in sequences:
        dataset = dataset[keyword].value[-1]
    if last.startswith("Overlay"):
        row = stated_as_written()[last]
        return derived[int(re.sub(r"[(),]", "", row["tag"].replace("xx", "00")), 16)].value
    return (derived.file_meta if last in derived.file_meta else dataset)[last].value


def test_columns_presence_and_source_use_only_explained_words() -> None:
    used = {row["presence"] for row in rows(*WRITTEN)} | {row["source"] for row in rows(*WRITTEN)}
    assert used <= {row["code"] for row in rows("code", "meaning")}


FORMULAE = {
    ScalingRule.MULTIPLY: "\N{MULTIPLICATION SIGN} s",
    ScalingRule.DIVIDE: "÷ s",
    ScalingRule.FIRST_PIXEL: "(c - 1)·s + 1",
    ScalingRule.LAST_PIXEL: "c·s",
    ScalingRule.CENTRE: "(c - 1)·s + s/2",
    ScalingRule.MULTIPLY_AREA: "\N{MULTIPLICATION SIGN} s²",
    ScalingRule.FIRST_PIXEL_POSITION: "centre of the new first pixel",
}


@pytest.mark.parametrize("line", PIXEL_GEOMETRY, ids=lambda line: line.keyword)
def test_each_attribute_counted_in_pixels_follows_its_stated_rule(
    line: PixelGeometryAttribute,
) -> None:
    path = " > ".join((*line.within, line.keyword))
    if line.rule is ScalingRule.REFUSE:
        assert path in by_path(rows(*REFUSED))
    else:
        value = stated_as_written()[path]["value"]
        assert re.split("[;,:]", value)[0] == FORMULAE[line.rule]


def test_verify_allows_exactly_the_stated_changes() -> None:
    named = [row for columns in (WRITTEN, REMOVED, REFUSED) for row in rows(*columns)]
    stated = {row["keyword"] for row in named if not row["keyword"].startswith(">")}
    for tag in DicomDictionary:
        if tag >> 16 != 0x0002 and keyword_for_tag(tag):
            assert is_modified(BaseTag(tag)) == (keyword_for_tag(tag) in stated), BaseTag(tag)


def test_the_statement_lists_every_attribute_that_refuses_an_image() -> None:
    """Every attribute of the table, and the sequences that these lie in."""
    refused = [line for line in PIXEL_GEOMETRY if line.rule is ScalingRule.REFUSE]
    keywords = {keyword for line in refused for keyword in (*line.within, line.keyword)}
    assert {row["keyword"].lstrip(">") for row in rows(*REFUSED)} == keywords


@pytest.mark.parametrize(("size", "kept"), [(256 * 256 - 2, True), (256 * 256, False)], ids=str)
def test_private_elements_as_large_as_the_image_are_left_out(
    tmp_path: Path, size: int, *, kept: bool
) -> None:
    def add_private(chest: FileDataset) -> None:
        block = chest.private_block(0x0009, "TEST", create=True)
        block.add_new(0x02, "OB", bytes(size))

    _, derived = derive_from(add_private, tmp_path)
    assert ((0x0009, 0x1002) in derived) == kept


# Configuration


def test_every_option_that_the_statement_names_exists(cxrsr: Command) -> None:
    named = set(re.findall(r"(?<!-)--[a-z][a-z-]+", STATEMENT))
    helps = [cxrsr(command, "--help").stdout for command in ("upscale", "verify", "serve", "send")]
    assert named - set(re.findall(r"--[a-z][a-z-]+", "".join(helps))) == set()


NONE = "\N{EN DASH}"
"""Stands in a cell for nothing."""

NODE = ("key of the node", "default", "meaning")
STORE = ("key of a `store` destination", "option of the sender", "default", "meaning")
STOW = ("key of a `stow` destination", "option of the sender", "default", "meaning")


def defaults(made: object, path: str = "") -> dict[str, object]:
    """Flatten a configuration to its values by key; what has no keys given is none."""
    found: dict[str, object] = {}
    assert is_dataclass(made)
    for one in fields(made):
        value, key = getattr(made, one.name), f"{path}{one.name}"
        found |= defaults(value, f"{key}.") if is_dataclass(value) else {key: value}
    return found


def stated_default(cell: str) -> object:
    if cell in ("none", "this machine"):
        return None
    with contextlib.suppress(ValueError):
        return parse_byte_size(cell)
    return {"true": True, "false": False}.get(cell.strip("`"), cell.strip("`"))


def test_the_stated_defaults_of_the_node_are_the_codes() -> None:
    made = ServeConfig(spool=Path("x"), destinations={}, rules=())
    others = {"spool", "destinations", "rules", "device", "memory", "health"}
    expected = {key: value or None for key, value in defaults(made).items() if key not in others}
    stated = {row[NODE[0]].strip("`"): stated_default(row["default"]) for row in rows(*NODE)}
    assert {key: value or None for key, value in stated.items()} == expected


@pytest.mark.parametrize(
    ("columns", "made"),
    [
        (STORE, CStoreDestination(host="-", port=1, called_ae="-")),
        (STOW, StowDestination(url="http://127.0.0.1")),
    ],
    ids=["store", "stow"],
)
def test_the_stated_defaults_of_destinations_are_the_codes(
    columns: tuple[str, ...], made: object
) -> None:
    stated = {row[columns[0]].strip("`"): row["default"] for row in rows(*columns)}
    expected = defaults(made)
    assert list(stated) == sorted(expected, key=list(stated).index), "every key, and no other"
    for key, cell in stated.items():
        if cell == NONE:
            assert dataclass_field(made, key).default is MISSING, key
        else:
            assert stated_default(cell) == expected[key], key


def dataclass_field(made: object, key: str) -> Field[object]:
    assert is_dataclass(made)
    return next(one for one in fields(made) if one.name == key)


def test_the_stated_port_of_the_node_is_the_default() -> None:
    ports = rows("port", "direction", "protocol", "configured by")
    stated = {row["configured by"]: row["port"] for row in ports}
    assert stated["`scp.port`"] == str(ScpConfig().port)
    others = {port for key, port in stated.items() if key != "`scp.port`"}
    assert others == {"none"}


# Network


def test_the_sop_classes_that_are_received_are_stated() -> None:
    table = rows("SOP Class", "UID", "user (SCU)", "provider (SCP)")
    taken: dict[str, list[str]] = {}
    for row in table[:-1]:
        assert UID(row["UID"]).name == row["SOP Class"]
        taken.setdefault(row["provider (SCP)"], []).append(row["UID"])
    few, many = storage_classes(), storage_classes(frozenset({AcceptanceOverride.MODALITY}))
    (verification,) = supported_contexts(())
    assert set(taken["Y"]) == {verification.abstract_syntax, *few}
    assert set(taken["`modality`"]) == set(many) - set(few)


def test_received_sop_classes_name_the_override_that_they_need() -> None:
    """Each is an image that 1.1 accepts with it."""
    stated = {row["UID"]: row["accepted"] for row in rows(*ACCEPTED)}
    for uid in storage_classes(frozenset({AcceptanceOverride.MODALITY})):
        assert stated.get(uid, stated["any other"]) in ("always", "`for-processing`", "`modality`")


def test_the_transfer_syntaxes_of_presentation_contexts_are_stated() -> None:
    read = {row["UID"] for row in rows("transfer syntax", "UID", "decoded by", "lossy method")}
    verification, storage = supported_contexts(storage_classes()[:1])
    assert set(storage.transfer_syntax or ()) == read
    columns = ("abstract syntax", "transfer syntaxes", "role", "extended negotiation")
    stated = {row["abstract syntax"]: row["transfer syntaxes"] for row in rows(*columns)}
    names = [UID(uid).name for uid in verification.transfer_syntax or ()]
    assert stated[UID(verification.abstract_syntax or "").name].split("; ") == names
    plain = " and ".join(syntax.name for syntax in FALLBACK_SYNTAXES)
    assert stated["SOP Class of each file to be sent"].endswith(f"a second context, {plain}")
    assert stated["Storage Commitment Push Model SOP Class"] == plain


@pytest.mark.peer
def test_the_first_proposed_transfer_syntax_is_accepted(tmp_path: Path) -> None:
    proposed = [JPEG2000, ExplicitVRLittleEndian]
    receiver = StorageScp(ScpConfig(port=0), tmp_path, lambda _: DimseStatus.OUT_OF_RESOURCES)
    receiver.start()
    try:
        for syntaxes in (proposed, proposed[::-1]):
            entity = AE()
            entity.add_requested_context(storage_classes()[0], syntaxes)
            association = entity.associate("127.0.0.1", receiver.port, ae_title="CXRSR")
            (context,) = association.accepted_contexts
            assert context.transfer_syntax == syntaxes[:1]
            acceptor = association.acceptor
            association.release()
            assert f"| {acceptor.maximum_length} bytes; up to" in STATEMENT
            assert acceptor.implementation_class_uid == IMPLEMENTATION_CLASS_UID
            assert str(acceptor.implementation_version_name) == IMPLEMENTATION_VERSION_NAME
    finally:
        receiver.stop(5)


def test_the_requestor_states_its_implementation() -> None:
    entity = make_ae("CXRSR", 30.0)
    assert entity.implementation_class_uid == IMPLEMENTATION_CLASS_UID
    assert entity.implementation_version_name == IMPLEMENTATION_VERSION_NAME
    assert f"| {entity.maximum_pdu_size} bytes |" in STATEMENT


REJECTED = ("reason", "result", "source", "diagnostic", "meaning")
ABORTED = ("reason", "A-ABORT reason", "meaning")
ANSWERED = ("reason", "status", "kind", "meaning")
CLOSED = ("reason", "connection is closed")


def test_the_association_rejections_are_stated() -> None:
    numbers = ("result", "source", "diagnostic")
    stated = {row["reason"]: tuple(int(row[key]) for key in numbers) for row in rows(*REJECTED)}
    expected = {
        str(reason): (rejection.result, rejection.source, rejection.diagnostic)
        for reason, rejection in REJECTIONS.items()
    }
    assert stated == expected


def test_the_abort_reasons_are_stated() -> None:
    stated = {row["reason"]: int(row["A-ABORT reason"]) for row in rows(*ABORTED)}
    assert stated == {str(reason): int(number) for reason, number in ABORTS.items()}


def test_the_status_codes_of_the_storage_scp_are_stated() -> None:
    stated = {row["reason"]: row["status"] for row in rows(*ANSWERED)}
    assert stated.pop(NONE) == f"0x{DimseStatus.SUCCESS:04X}"
    assert stated.pop(RefusalReason.NOT_TAKEN) == f"0x{DimseStatus.OUT_OF_RESOURCES:04X}", (
        "see Intake"
    )
    assert stated == {str(reason): f"0x{number:04X}" for reason, number in STATUSES.items()}


def test_every_refusal_reason_has_a_stated_consequence() -> None:
    named = {
        row["reason"] for table in (REJECTED, ABORTED, ANSWERED, CLOSED) for row in rows(*table)
    }
    assert named - {NONE} == {str(reason) for reason in RefusalReason}


def most_specific(stated: dict[str, str], code: str, otherwise: str = "") -> str:
    """Find a code in a table whose rows may stand for several, as 0xA7xx does."""
    for masked in range(len(code) + 1):
        key = code[: len(code) - masked] + "x" * masked
        if key in stated:
            return stated[key]
    return stated[otherwise]


def test_the_stated_outcome_of_every_dimse_status_is_the_codes() -> None:
    stated = {
        row["status received"]: row["outcome"]
        for row in rows("status received", "meaning", "outcome")
    }
    for status in range(0x10000):
        said = most_specific(stated, f"0x{status:04X}", "any other")
        assert classify_status(status)[0] == said, hex(status)


def test_the_stated_outcome_of_every_http_status_is_the_codes() -> None:
    stated = {
        row["HTTP status"]: row["outcome"] for row in rows("HTTP status", "outcome", "meaning")
    }
    for status in range(200, 600):
        assert _classify_http_status(status)[0] == most_specific(stated, str(status)), status


def test_a_stow_request_has_the_stated_headers(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(b"x")
    with MultipartRelatedFile(path) as body:
        media_type, _, boundary = body.content_type.rpartition("; ")
    assert boundary.startswith("boundary=")
    assert f"`{media_type}`" in STATEMENT


def test_the_stated_tls_profile_is_the_codes() -> None:
    context = TlsConfig().client_context()
    stated = {(row["cipher suite"], row["version"]) for row in rows("cipher suite", "version")}
    assert stated == {(cipher["name"], cipher["protocol"]) for cipher in context.get_ciphers()}
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


# Codes


def test_the_statement_lists_exactly_the_coded_terms_of_the_output(pairs: list[Pair]) -> None:
    source, derived = pairs[0]
    stated = {
        (row["attribute"], row["code"], row["scheme"], row["meaning"])
        for row in rows("attribute", "code", "scheme", "meaning", "CID")
    }
    found = {
        (path.removesuffix(" > CodeValue"), *_code(derived, path.removesuffix("CodeValue")))
        for path in stated_as_written()
        if path.endswith("CodeValue")
    }
    found |= {
        ("DerivationCodeSequence", item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning)
        for item in derived.DerivationCodeSequence
        if item not in source.DerivationCodeSequence
    }
    found |= {
        ("ContributingEquipmentSequence > PurposeOfReferenceCodeSequence",
         code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning)
        for item in derived.ContributingEquipmentSequence
        for code in item.get("PurposeOfReferenceCodeSequence", ())
    }  # fmt: skip
    assert found == stated


def _code(derived: FileDataset, path: str) -> tuple[str, ...]:
    parts = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    return tuple(str(_value(derived, path + part)) for part in parts)


def test_coded_terms_belong_to_their_context_groups() -> None:
    for row in rows("attribute", "code", "scheme", "meaning", "CID"):
        keywords = cid_concepts[int(row["CID"])][row["scheme"]]
        terms = [getattr(codes.DCM, keyword) for keyword in keywords]
        assert (row["code"], row["meaning"]) in [(term.value, term.meaning) for term in terms]


def test_the_terms_and_codes_of_a_chest_are_stated() -> None:
    taken = {"chest": Region.CHEST, "combined": Region.BOTH, "other": Region.OTHER}
    stated = [
        (taken.get(row["taken for"]), row["codes"]) for row in rows("region", "codes", "taken for")
    ]
    assert stated == [one for one in CODES if one[0] is not Region.BESIDE]
    parts = {"accepted": BodyPart.CHEST, "accepted with a warning": BodyPart.COMBINED}
    for row in rows("Body Part Examined", "is"):
        for value in row["Body Part Examined"].split(", "):
            dataset = Dataset()
            with quiet_libraries():  # not every device keeps to the characters of CS
                dataset.BodyPartExamined = value
            assert stated_body_part(dataset).part is parts.get(row["is"], BodyPart.OTHER), value
