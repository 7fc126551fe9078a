"""Which texts and codes state the chest: values that devices, archives and the standard write."""

from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sr import _cid_dict, _concepts_dict

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.acceptance import check_acceptance
from cxrsr_cli.dicom.body_part import (
    WORDS,
    BodyPart,
    BodyPartTerms,
    Region,
    _normal,
    stated_body_part,
)
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
        "LỒNG NGỰC THẲNG", "TÜDŐ", "छाती",
        "胸部", "胸部正位", "胸片", "胸写", "肺", "ＣＨＥＳＴ", "胸",
        "胸部后前位", "胸后前位", "胸部背腹位", "胸部レントゲン", "左胸",
        # Joined words, one of which could end otherwise
        "CHESTSUPINE", "CHESTSTANDING", "CHESTSITTING", "LUNGSUPINE", "RIBSUPINE", "CHESTSPA",
        # Codes as texts
        "T-D3000", "51185008",
    ),
    BodyPart.COMBINED: (
        "CHESTABDOMEN", "CHEST AND ABDOMEN", "CHEST\\ABDOMEN", "CHEST/ABD", "NECKCHEST",
        "NECKCHESTABDOMEN", "BABYGRAM", "TÓRAX Y ABDOMEN", "THORAX + HALS", "胸腹部",
    ),
    BodyPart.NOT_STATED: (
        "", " ", "PA", "AP LAT", "PA AND LAT", "UNKNOWN", "-", "PORTABLE", "N/A", "N.A.", "P.A.",
    ),
    BodyPart.OTHER: (
        "HIP", "HIPS", "LEFT HIP", "HÜFTE", "HANCHE", "CADERA", "髋", "股関節", "고관절", "ТАЗ",
        "PELVIS",
        "CHEST HIP", "CHEST\\HIP", "CHESTABDPELVIS", "NECKCHESTABDPELV", "THORAX BECKEN",
        "TSPINE", "T-SPINE", "THORACIC SPINE", "THORACIC", "BRUSTWIRBELSÄULE", "RACHIS THORACIQUE",
        "COLUMNA TORACICA", "ГРУДНОЙ ОТДЕЛ", "胸椎", "흉추", "BWS", "COLUMNA TORAX",
        "ABDOMEN", "NECK", "KUB", "BREAST", "CLAVICLE", "SHOULDER", "SKULL", "FACE", "EXTREMITY",
        # The spine or a limb beside a word for the chest, or joined to it
        "胸腰段", "胸腰段正侧位", "胸腰移行部", "胸锁", "颈胸段", "頸胸椎移行部", "胸部脊柱",
        "胸髓", "흉요추", "흉쇄관절",
        "CHEST LUMBAR", "RIBS AND LUMBAR", "THORACOLUMBAR RIB", "VERTEBRAS TORAX", "CHEST FEMORAL",
        "THORAX UNTERARM", "CHEST LUMBOSACRAL", "TORAX LOMBAR", "THORAX DORSOLOMBAIRE",
        "THORAX LENDENWIRBELSÄULE", "TORACE OMERO", "TÓRAX ANTEBRAZO", "THORAX RYGGSÖYLE",
        "KLATKA KRĘGOSŁUPA", "MELLKAS HÁTGERINC", "TORAKS KRALJEŽNICA", "THORAX WERVELS",
        "КЛЕТКА ПОЯСНИЧНЫЙ", "ΘΩΡΑΚΑΣ ΣΠΟΝΔΥΛΩΝ", "THẮT LƯNG", "LƯNG", "THAT LUNG",
        "חזה שדרה", "الصدر فقرات", "छाती रीढ़", "ทรวงอก สันหลัง", "DADA BELAKANG",
        "CHEST L.W.S.",
        # Words that mean something else, too
        "CORPO TUDO", "RIBBED", "RIBAND", "GAMBA LUNGA", "DEUX CÔTÉS", "COSTA DEL SOL",
        # More than any value may have
        "CHEST " * 11, "CHEST " * 11 + "HIP",
        "WHOLEBODY", "29836001", "T-D2500", "0815", "CHIP", "XR0023",
    ),
}  # fmt: skip


def dataset_of(text: object = "", **item: str) -> Dataset:
    """Return an object that states a body part, and a region if its item is given."""
    dataset, region = Dataset(), Dataset()
    with quiet_libraries():
        for keyword, value in item.items():
            setattr(region, keyword, value)
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


def test_every_word_states_its_region() -> None:
    """A word with ``*`` does with anything in its place, also beside the chest."""
    parts = {
        Region.CHEST: BodyPart.CHEST,
        Region.BESIDE: BodyPart.COMBINED,
        Region.BOTH: BodyPart.COMBINED,
        Region.OTHER: BodyPart.OTHER,
    }
    for region, line in WORDS:
        for word in line.replace("*", "QQ").split():
            found = stated_body_part(dataset_of(f"CHEST {word}")).part
            assert found is parts.get(region, BodyPart.CHEST), word
            alone = stated_body_part(dataset_of(word)).part
            assert (alone is BodyPart.CHEST) == (region is Region.CHEST), word


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


@pytest.mark.parametrize(
    "encoding", ["gb18030", "cp932", "euc_kr", "utf-8", "cp1251", "big5", "iso8859_2"]
)
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
        ({"accept": ("PA",)}, "PA", BodyPart.CHEST),
        ({"accept": ("WARD 7*",)}, "WARD 7 HIP", BodyPart.OTHER),
        ({"accept": ("WARD 7*",)}, "WARD 7 ABDOMEN", BodyPart.OTHER),
        ({"accept": ("HIP", "29836001")}, "HIP", BodyPart.OTHER),
        ({"accept": ("BABYGRAM",)}, "BABYGRAM", BodyPart.COMBINED),
        ({"accept": ("WARD*",)}, "WARD " * 14, BodyPart.OTHER),
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
    ("meaning", "part"),
    [
        ("Hip joint", BodyPart.OTHER),
        ("Chest", BodyPart.CHEST),
        ("0815", BodyPart.CHEST),
        ("Abdomen", BodyPart.COMBINED),
        ("STERNUM", BodyPart.OTHER),
    ],
)
def test_an_accepted_text_does_not_hide_another_region(meaning: str, part: BodyPart) -> None:
    own = BodyPartTerms(accept=("WARD 7*",), refuse=("STERNUM",))
    assert stated_body_part(dataset_of("WARD 7 EAST", CodeMeaning=meaning), own).part is part


def test_the_text_of_a_region_is_the_one_that_states_it() -> None:
    assert stated_body_part(dataset_of("CHEST", CodeMeaning="Hip joint")).text == "Hip joint"
    assert stated_body_part(dataset_of("CHEST", CodeMeaning="Abdomen")).text == "CHEST"


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
