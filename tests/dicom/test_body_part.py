"""Which texts and codes state the chest: values that devices, archives and the standard write."""

from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sr import _cid_dict, _concepts_dict

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.acceptance import check_acceptance
from cxrsr_cli.dicom.body_part import WORDS, BodyPart, BodyPartTerms, _normal, stated_body_part
from cxrsr_cli.errors import OutOfScopeError
from tests.conftest import small_chest

TEXTS = {
    BodyPart.CHEST: (
        # The defined terms of PS3.16 annex L
        "CHEST", "THORAX", "LUNG", "RIB", "STERNUM", "HEART", "MEDIASTINUM",
        # With the view, the technique or the device, joined or not
        "CHEST PA", "CHEST_AP", "THORAX AP", "THORAX PA", "PORT CHEST", "LUNGS", "RIBS", "CHESTPA",
        "CHEST2V", "XR CHEST 2 VIEWS", "Chest (portable AP)", "CXR", "CHEST-LAT", "CHEST 7/WARD",
        "THORAX DE FACE", "TORAX DE PIE", "CHEST DECUBITUS", "BETT THORAX", "PORTCHEST",
        # Other languages
        "TORAX", "TÓRAX", "Tórax PA", "TORACE", "PULMÃO", "RX TORAX", "LUNGE", "Brustkorb",
        "POUMONS", "KLATKA PIERSIOWA", "PŁUCA", "HRUDNÍK", "AKCİĞER", "GÖĞÜS", "LUNGOR",
        "BRÖSTKORG", "MELLKAS", "KEUHKOT", "ГРУДНАЯ КЛЕТКА", "ОГК", "ΘΩΡΑΚΑΣ", "חזה", "الصدر",
        "LỒNG NGỰC", "DADA", "ทรวงอก", "흉부", "흉부촬영",
        "胸部", "胸部正位", "胸片", "胸写", "肺", "ＣＨＥＳＴ",
        # Codes as texts
        "T-D3000", "51185008",
    ),
    BodyPart.COMBINED: (
        "CHESTABDOMEN", "CHEST AND ABDOMEN", "CHEST\\ABDOMEN", "CHEST/ABD", "NECKCHEST",
        "NECKCHESTABDOMEN", "BABYGRAM", "TÓRAX Y ABDOMEN", "THORAX + HALS", "胸腹部",
    ),
    BodyPart.NOT_STATED: ("", " ", "PA", "AP LAT", "UNKNOWN", "-", "PORTABLE"),
    BodyPart.OTHER: (
        "HIP", "HIPS", "LEFT HIP", "HÜFTE", "HANCHE", "CADERA", "髋", "股関節", "고관절", "ТАЗ",
        "PELVIS",
        "CHEST HIP", "CHEST\\HIP", "CHESTABDPELVIS", "NECKCHESTABDPELV", "THORAX BECKEN",
        "TSPINE", "T-SPINE", "THORACIC SPINE", "THORACIC", "BRUSTWIRBELSÄULE", "RACHIS THORACIQUE",
        "COLUMNA TORACICA", "ГРУДНОЙ ОТДЕЛ", "胸椎", "흉추", "BWS", "COLUMNA TORAX",
        "ABDOMEN", "NECK", "KUB", "BREAST", "CLAVICLE", "SHOULDER", "SKULL", "FACE", "EXTREMITY",
        "WHOLEBODY", "29836001", "T-D2500", "0815", "CHIP", "XR0023",
    ),
}  # fmt: skip


def dataset_of(text: object = "", **item: str) -> Dataset:
    """Return an object that states a body part, and a region if its item is given."""
    dataset, region = Dataset(), Dataset()
    for keyword, value in item.items():
        setattr(region, keyword, value)
    with quiet_libraries():
        dataset.BodyPartExamined = text
    dataset.AnatomicRegionSequence = [region] if item else []
    return dataset


@pytest.mark.parametrize(
    ("text", "part"), [(text, part) for part, texts in TEXTS.items() for text in texts]
)
def test_a_text_states_a_body_part(text: str, part: BodyPart) -> None:
    assert stated_body_part(dataset_of(text)).part is part
    assert stated_body_part(dataset_of(text.lower())).part is part
    assert stated_body_part(dataset_of(CodeMeaning=text, CodeValue="")).part is part


def test_no_word_has_two_regions() -> None:
    words = [_normal(word) for _, line in WORDS for word in line.split()]
    assert [word for word in {*words} if words.count(word) > 1] == []


@pytest.mark.parametrize(
    ("text", "encoding", "declared"),
    [
        ("胸部", "utf-8", "ISO_IR 192"),
        ("胸部", "utf-8", None),
        ("胸部正位", "gb18030", "GB18030"),
        ("胸部正位", "gb18030", None),
        ("胸部", "iso2022_jp", ["", "ISO 2022 IR 87"]),
        ("胸部", "cp932", None),
        ("흉부", "euc_kr", None),
        ("TÓRAX", "latin-1", None),
        ("GÖĞÜS", "iso8859_9", None),
        ("ОГК", "cp1251", None),
        ("ОГК", "iso8859_5", "ISO_IR 144"),
        ("ΘΩΡΑΚΑΣ", "cp1253", None),
    ],
)
def test_a_text_is_read_in_the_character_set_that_it_has(
    text: str, encoding: str, declared: str | list[str] | None
) -> None:
    dataset = dataset_of(text.encode(encoding).decode("latin-1"))
    if declared:
        dataset.SpecificCharacterSet = declared
    stated = stated_body_part(dataset)
    assert (stated.part, stated.text) == (BodyPart.CHEST, text)


@pytest.mark.parametrize("encoding", ["gb18030", "cp932", "euc_kr", "utf-8", "cp1251", "big5"])
def test_another_region_in_an_unknown_character_set_is_no_chest(encoding: str) -> None:
    for text in TEXTS[BodyPart.OTHER]:
        try:
            data = text.encode(encoding)
        except UnicodeEncodeError:
            continue
        stated = stated_body_part(dataset_of(data.decode("latin-1")))
        assert stated.part is BodyPart.OTHER, text


def test_of_the_context_groups_of_the_standard_those_with_a_whole_chest_are_accepted() -> None:
    """CID 4 Anatomic Region and CID 4009 DX Anatomy Imaged, by code and by the meaning alone."""
    meanings: Any = _concepts_dict.concepts
    concepts: Any = _cid_dict.cid_concepts
    accepted = {"by code": set[str](), "by meaning": set[str]()}
    for cid in (4, 4009):
        for scheme, keywords in concepts[cid].items():
            for keyword in keywords:
                for code, (meaning, _) in meanings[scheme][keyword].items():
                    items = {
                        "by code": {"CodeValue": code, "CodeMeaning": meaning},
                        "by meaning": {"CodeValue": "7", "CodeMeaning": meaning},
                    }
                    for how, item in items.items():
                        if stated_body_part(dataset_of(**item)).part is not BodyPart.OTHER:
                            accepted[how].add(meaning)
    named = {
        "Chest", "Thorax", "Lung", "Apex of Lung", "Rib", "Sternum", "Heart", "Mediastinum",
        "Chest and Abdomen", "Neck and Chest", "Neck, Chest and Abdomen",
    }  # fmt: skip
    assert accepted == {"by code": named | {"Intra-thoracic", "Endo-cardiac"}, "by meaning": named}


@pytest.mark.parametrize(
    ("item", "part"),
    [
        ({"CodeValue": "51185008", "CodingSchemeDesignator": "SCT"}, BodyPart.CHEST),
        ({"CodeValue": "T-D3000", "CodingSchemeDesignator": "SRT"}, BodyPart.CHEST),
        ({"CodeValue": "T-D3000", "CodingSchemeDesignator": "99SDM"}, BodyPart.CHEST),
        ({"CodeValue": "RID1243", "CodingSchemeDesignator": "RADLEX"}, BodyPart.CHEST),
        ({"CodeValue": "XR17", "CodeMeaning": "Thorax p.a."}, BodyPart.CHEST),
        ({"CodeValue": "THORAX_PA", "CodingSchemeDesignator": "99HOSP"}, BodyPart.CHEST),
        ({"CodeValue": "416550000"}, BodyPart.COMBINED),
        ({"CodeValue": "416775004"}, BodyPart.OTHER),
        ({"CodeValue": "29836001", "CodeMeaning": "Hip"}, BodyPart.OTHER),
        ({"CodeValue": "XR18"}, BodyPart.OTHER),
        ({"CodeValue": "", "CodeMeaning": ""}, BodyPart.NOT_STATED),
    ],
    ids=str,
)
def test_a_code_states_a_body_part(item: dict[str, str], part: BodyPart) -> None:
    assert stated_body_part(dataset_of(**item)).part is part


@pytest.mark.parametrize(
    ("text", "meaning", "part"),
    [
        ("XR0023", "Chest", BodyPart.CHEST),
        ("CHEST", "Abdomen", BodyPart.COMBINED),
        ("CHEST", "Hip", BodyPart.OTHER),
        ("HIP", "Chest", BodyPart.OTHER),
        ("CHEST", "0815", BodyPart.CHEST),
    ],
)
def test_another_region_in_either_attribute_refuses_the_object(
    text: str, meaning: str, part: BodyPart
) -> None:
    assert stated_body_part(dataset_of(text, CodeMeaning=meaning)).part is part


@pytest.mark.parametrize(
    ("terms", "text", "part"),
    [
        ({"accept": ("XR0023",)}, "xr0023", BodyPart.CHEST),
        ({"accept": ("bed *",)}, "BED 7", BodyPart.CHEST),
        ({"accept": ("bed",)}, "BED 7 HIP", BodyPart.OTHER),
        ({"accept": ("*",), "refuse": ("HIP*",)}, "HIP AP", BodyPart.OTHER),
        ({"refuse": ("STERNUM", "BABYGRAM")}, "BABYGRAM", BodyPart.OTHER),
        ({"refuse": ("STERNUM",)}, "STERNUM LAT", BodyPart.CHEST),
    ],
    ids=str,
)
def test_the_words_of_a_site_count_more(
    terms: dict[str, tuple[str, ...]], text: str, part: BodyPart
) -> None:
    own = BodyPartTerms(**terms)
    assert stated_body_part(dataset_of(text), own).part is part
    assert stated_body_part(dataset_of(CodeMeaning=text, CodeValue="0"), own).part is part


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("HÜFTE LINKS", "'HÜFTE LINKS'"),
        ("股関節", "'股関節'"),
        ("HIP\x1b[31m red", r"'HIP\?\[31m red'"),
    ],
)
def test_the_refused_value_is_quoted(text: str, says: str) -> None:
    dataset = small_chest()
    with quiet_libraries():
        dataset.BodyPartExamined = text.encode().decode("latin-1")
    with pytest.raises(OutOfScopeError, match=f"body part {says} is not.*--body-parts"):
        check_acceptance(dataset, 2, frozenset())


def test_a_combined_region_is_accepted_with_a_warning() -> None:
    (warning,) = check_acceptance(small_chest(BodyPartExamined="BABYGRAM"), 2, frozenset())
    assert warning.startswith("the stated body part 'BABYGRAM' is more than the chest")
