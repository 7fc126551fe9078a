"""Whether an object shows the chest, by the texts and codes that devices and archives write.

Body Part Examined is free text in practice: another language, with the view, the device or the
ward beside the region. So it is read word by word. Each line of `WORDS` and `CODES` is a rule.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import TypeAdapter
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import TEXT_VR_DELIMS

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.common.yaml_config import StrOrList, load_yaml_mapping, validate


class Region(Enum):
    """What a word or a code says of the region."""

    CHEST = auto()
    BESIDE = auto()
    """A region that a radiograph may show beside the chest."""
    BOTH = auto()
    """The chest and a region beside it, in one word."""
    OTHER = auto()
    """Another region: the object is not a chest radiograph, whatever else is named."""
    NONE = auto()
    """No region, but a view, a technique or a filler."""
    UNKNOWN = auto()


class BodyPart(Enum):
    """What an object shows, as far as it states it."""

    CHEST = auto()
    COMBINED = auto()
    """The chest and the neck or the abdomen."""
    OTHER = auto()
    NOT_STATED = auto()


WORDS = (
    # The defined terms of Body Part Examined (PS3.16 annex L), English and Latin
    (Region.CHEST, "CHEST CHESTS CXR THORAX LUNG LUNGS RIB RIBS STERNUM HEART MEDIASTINUM RIBCAGE"),
    (Region.CHEST, "HEMITHORAX PULMO PULMONES COSTA COSTAE"),
    (Region.CHEST, "LUNGE LUNGEN BRUSTKORB RIPPE RIPPEN BRUSTBEIN HERZ"),  # German
    (Region.CHEST, "POITRINE POUMON POUMONS COTES COEUR"),  # French
    (Region.CHEST, "TORAX PECHO PULMON COSTILLA COSTILLAS PARRILLA ESTERNON CORAZON"),  # Spanish
    (Region.CHEST, "PEITO PULMAO PULMOES COSTELA COSTELAS COSTAIS ESTERNO"),  # Portuguese
    (Region.CHEST, "TORACE EMITORACE POLMONE POLMONI COSTE COSTOLE STERNO"),  # Italian
    (Region.CHEST, "PLAMANI PULMONAR PULMONARA"),  # Romanian
    (Region.CHEST, "LONGEN BORSTKAS RIBBEN"),  # Dutch
    (Region.CHEST, "LUNGA LUNGOR BROSTKORG REVBEN LUNGER BRYSTKASSE RIBBEIN"),  # Scandinavian
    (Region.CHEST, "KEUHKO KEUHKOT RINTAKEHA KYLKILUUT KOPS KOPSUD RINDKERE"),  # Finnish, Estonian
    (Region.CHEST, "KLATKA PLUC PLUCA ZEBRA MOSTEK"),  # Polish
    (Region.CHEST, "HRUD HRUDNIK HRUDNIKU PLICE SRDCE PLJUCA TORAKS PRSNI"),  # Czech to Slovene
    (Region.CHEST, "MELLKAS TUDO BORDAK"),  # Hungarian
    (Region.CHEST, "KRUTINE PLAUCIAI KRUSKURVIS PLAUSAS"),  # Lithuanian, Latvian
    (Region.CHEST, "AKCIGER AKCIGERLER GOGUS KABURGA"),  # Turkish
    (Region.CHEST, "DADA PARU NGUC PHOI"),  # Indonesian, Malay, Vietnamese
    (Region.CHEST, "ΘΩΡΑΞ ΘΩΡΑΚΑΣ ΘΩΡΑΚΟΣ ΘΩΡΑΚΑ ΠΝΕΥΜΟΝΕΣ ΠΛΕΥΡΕΣ"),  # Greek
    (Region.CHEST, "ОГК ОГП КЛЕТКА КЛЕТКИ ЛЕГКИЕ ЛЕГКИХ РЕБРА ТОРАКС ФЛГ ФЛЮОРОГРАФИЯ"),  # Russian
    (Region.CHEST, "КЛІТКА КЛІТКИ КЛIТКА ЛЕГЕНІ ЛЕГЕНЬ КОШ ПЛУЋА"),  # Ukrainian to Serbian
    (Region.CHEST, "חזה ריאות צלעות صدر الصدر رئة الرئة الرئتين سینه ریه छाती"),
    (Region.CHEST, "胸 胸部 胸片 胸写 肺 心肺 肺部 心胸 肋 肋骨"),  # Chinese, Japanese
    (Region.CHEST, "흉부 가슴 폐 늑골 ทรวงอก ปอด"),  # Korean, Thai
    (Region.BESIDE, "ABDOMEN ABDOMENS ABDO ABD ABDOMINAL NECK KUB UPPERABDOMEN"),
    (Region.BESIDE, "BAUCH HALS COU VENTRE CUELLO VIENTRE PESCOCO ADDOME COLLO BUIK BUK MAGE"),
    (Region.BESIDE, "VATSA BRZUCH SZYJA BRICHO KRK HAS NYAK KARIN BATIN BOYUN PERUT BUNG"),
    (Region.BESIDE, "ΚΟΙΛΙΑ ЖИВОТ БРЮШНАЯ ОБП ШЕЯ בטן بطن البطن 腹 腹部 颈 颈部 頸部 복부 ท้อง"),
    (Region.BOTH, "BABYGRAM BABYGRAMM BABYGRAMME THORACOABDOMINAL TORACOABDOMINAL 胸腹 胸腹部"),
    (Region.OTHER, "HIP HIPS PELVIS PELV PELVIC SACRUM COCCYX"),
    (Region.OTHER, "SPINE SPINES TSPINE CSPINE LSPINE SSPINE TLSPINE CTSPINE LSSPINE"),
    (Region.OTHER, "VERTEBRA VERTEBRAE VERTEBRAL COLUMN SCOLIOSIS"),
    (Region.OTHER, "HEAD SKULL BRAIN NOSE JAW TEETH SINUS SINUSES BREAST BREASTS MAMMA"),
    (Region.OTHER, "SHOULDER CLAVICLE SCAPULA ARM HUMERUS ELBOW FOREARM WRIST HAND FINGER THUMB"),
    (Region.OTHER, "LEG LEGS FEMUR THIGH KNEE KNEES PATELLA TIBIA FIBULA ANKLE FOOT FEET TOE HEEL"),
    (Region.OTHER, "EXTREMITY EXTREMITIES LIMB JOINT MUSCLE ARTERY VEIN AORTA WHOLEBODY"),
    (Region.OTHER, "HUFTE HUEFTE BECKEN WIRBEL WIRBELSAULE WIRBELSAEULE WS BWS HWS LWS SCHULTER"),
    (Region.OTHER, "SCHADEL SCHAEDEL KNIE BEIN FUSS BRUSTWIRBELSAULE BRUSTWIRBELSAEULE"),  # German
    (Region.OTHER, "HANCHE BASSIN RACHIS COLONNE EPAULE GENOU CRANE SEIN SEINS"),  # French
    (Region.OTHER, "CADERA COLUMNA HOMBRO RODILLA CRANEO MAMA MAMAS"),  # Spanish
    (
        Region.OTHER,
        "QUADRIL BACIA COLUNA OMBRO JOELHO ANCA BACINO COLONNA RACHIDE SPALLA GINOCCHIO",
    ),
    (Region.OTHER, "HEUP BEKKEN WERVELKOLOM HOFT RYGG RYGGRAD LONKKA RANKA RINTARANKA COLOANA"),
    (Region.OTHER, "BIODRO MIEDNICA KREGOSLUP PATER KYCEL PANEV GERINC CSIPO KALCA OMURGA SONG"),
    (Region.OTHER, "ΙΣΧΙΟ ΛΕΚΑΝΗ ΣΠΟΝΔΥΛΙΚΗ ТАЗ БЕДРО СУСТАВ ПОЗВОНОЧНИК ПОЗВОНОЧНИКА"),
    (Region.OTHER, "胸椎 胸腰椎 椎 脊 髋 股 骨盆 骨盤 膝 踝 足 手 肘 肩 头 頭 锁骨 鎖骨"),
    (Region.OTHER, "乳 関節 关节 动脉 動脈"),
    (Region.OTHER, "흉추 요추 경추 척추 골반 고관절 무릎 쇄골 어깨 유방"),
    (Region.NONE, "PA AP LAT LATERAL LL RL LLAT RLAT LLD RLD OBL OBLIQUE DECUB DECUBITUS LORDOTIC"),
    (Region.NONE, "FRONTAL SUPINE ERECT UPRIGHT SITTING STANDING INSP EXP INSPIRATION EXPIRATION"),
    (Region.NONE, "PORT PORTABLE MOBILE BED BEDSIDE ICU NICU XRAY XR RX RTG DX CR DR XP RAY FILM"),
    (Region.NONE, "VIEW VIEWS PED PEDS PEDIATRIC PAED ADULT INFANT NEONATE AND"),
    (Region.NONE, "AUFNAHME BETT LIEGEND UEBERSICHT GRAFISI GRAFIA RONTGEN ROENTGEN PROFIL"),
    (Region.NONE, "UNKNOWN UNDEFINED UNSPECIFIED NONE NULL NA"),
    (
        Region.NONE,
        "部 片 正 位 正位 侧位 側面 正面 立位 卧位 臥位 床旁 撮影 検査 单纯 単純 X 線 线",
    ),
    (Region.NONE, "촬영 사진 정면 측면"),
)
"""What the words of a text say. Case, accents and the letters' compatibility forms do not count.
Words may be joined: CHESTPA is CHEST and PA. Scripts without spaces are searched for the words."""

CODES = (
    (Region.CHEST, "816094009 51185008 T-D3000 RID1243"),  # Chest, thorax
    (Region.CHEST, "43799004 T-D3200"),  # Thoracic cavity
    (Region.CHEST, "39607008 T-28000 RID1301"),  # Lung
    (Region.CHEST, "86598002 T-280A0"),  # Apex of lung
    (Region.CHEST, "78904004 T-D3050"),  # Chest wall
    (Region.CHEST, "113197003 T-11300"),  # Rib
    (Region.CHEST, "56873002 T-11210"),  # Sternum
    (Region.CHEST, "72410000 T-D3300"),  # Mediastinum
    (Region.CHEST, "80891009 T-32000"),  # Heart
    (Region.BOTH, "416550000 R-FAB55"),  # Chest and abdomen
    (Region.BOTH, "417437006 R-FAB52"),  # Neck and chest
    (Region.BOTH, "416152001 R-FAB53"),  # Neck, chest and abdomen
    (Region.BESIDE, "818981001 113345001 T-D4000"),  # Abdomen
    (Region.BESIDE, "45048000 T-D1600"),  # Neck
    (Region.OTHER, "416775004 R-FAB56"),  # Chest, abdomen and pelvis
    (Region.OTHER, "416319003 R-FAB54"),  # Neck, chest, abdomen and pelvis
)
"""What Code Values say: SNOMED CT, its older SRT values, RadLex. All others are read as texts, by
Code Value and Code Meaning, as those of a hospital's own scheme are."""

_NO_MARKS = str.maketrans({"Ł": "L", "Ø": "O", "Đ": "D", "Æ": "AE"})
_FIRST_UNSPACED = "\u0e00"
"""Thai. The scripts from here on write words without spaces: Thai, Hangul, kana, Han."""

_GUESSED_CHARACTER_SETS = (
    "gb18030", "cp932", "euc_jp", "cp949", "big5", "cp1251", "iso8859_5", "iso8859_9", "iso8859_2",
    "cp1253", "cp1255", "cp1256", "cp874",
)  # fmt: skip
"""VR CS has ASCII only, so pydicom reads it as Latin-1, and Specific Character Set is often
absent. One of these is believed only if it makes every word known, and one of them a chest."""


def _normal(text: str) -> str:
    """Return a text without case, accents and compatibility forms."""
    whole = unicodedata.normalize("NFKD", text.upper().translate(_NO_MARKS))
    return "".join(c for c in whole if unicodedata.category(c) != "Mn")


_REGION_OF_WORD = {_normal(word): region for region, words in WORDS for word in words.split()}
_REGION_OF_CODE = {code: region for region, codes in CODES for code in codes.split()}
_ANY_WORD = "|".join(sorted(map(re.escape, _REGION_OF_WORD), key=len, reverse=True))
_WORD = re.compile(_ANY_WORD)
_JOINED_WORDS = re.compile(f"(?>{_ANY_WORD})++")
_TOKEN = re.compile(r"[^\W\d_]+")
_MAX_TEXT_LENGTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyPartTerms:
    """A site's own body parts, which count more than the built-in words and codes.

    Attributes
    ----------
    accept, refuse : tuple of str
        Whole values of Body Part Examined, Code Value or Code Meaning, without regard to case
        and accents; ``*`` and ``?`` stand for any characters. What is refused counts most.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    accept: Annotated[tuple[str, ...], StrOrList] = ()
    refuse: Annotated[tuple[str, ...], StrOrList] = ()

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a YAML file with the keys ``accept`` and ``refuse``.

        Raises
        ------
        ConfigError
            If it cannot be read, or says anything else.
        """
        return validate(TypeAdapter(cls), load_yaml_mapping(Path(path)), Path(path))


@dataclass(frozen=True, slots=True)
class StatedBodyPart:
    """What an object states of its body part."""

    part: BodyPart
    text: str
    """The value that states it; empty if there is none."""


def stated_body_part(dataset: Dataset, terms: BodyPartTerms | None = None) -> StatedBodyPart:
    """Read Body Part Examined and Anatomic Region Sequence (PS3.3 C.8.11.2, 10.5).

    Parameters
    ----------
    dataset : pydicom.Dataset
        The object.
    terms : BodyPartTerms, optional
        The site's own body parts.
    """
    terms = terms or BodyPartTerms()
    regions, texts = set[Region](), list[str]()
    for statement in _statements(dataset):
        found, text = _read(statement, dataset)
        regions |= found
        texts.append(text)
    names = [_normal(text) for text in texts]
    if _is_listed(names, terms.refuse):
        part = BodyPart.OTHER
    elif _is_listed(names, terms.accept):
        part = BodyPart.CHEST
    else:
        part = _judge(regions)
    return StatedBodyPart(part, texts[0] if texts else "")


def _judge(regions: set[Region]) -> BodyPart:
    if regions <= {Region.NONE}:
        return BodyPart.NOT_STATED
    if Region.OTHER in regions or not regions & {Region.CHEST, Region.BOTH}:
        return BodyPart.OTHER
    return BodyPart.COMBINED if regions & {Region.BOTH, Region.BESIDE} else BodyPart.CHEST


def _statements(dataset: Dataset) -> Iterator[str]:
    """Yield what states a body part, without spaces around it."""
    value = dataset.get("BodyPartExamined") or ""
    values = value if isinstance(value, MultiValue | list) else [value]
    texts: list[object] = ["\\".join(map(str, values))]
    for item in dataset.get("AnatomicRegionSequence") or ():
        texts += [item.get("CodeMeaning"), item.get("CodeValue"), item.get("LongCodeValue")]
    yield from filter(None, (str(text or "").strip() for text in texts))


def _is_listed(names: Iterable[str], patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, _normal(pattern)) for name in names for pattern in patterns)


def _read(text: str, dataset: Dataset) -> tuple[set[Region], str]:
    """Return what a code or the words of a text say, and the text in its character set."""
    text = text[:_MAX_TEXT_LENGTH]
    if region := _REGION_OF_CODE.get(text.upper()):
        return {region}, text
    stated, guessed = list[str](), list[str]()
    try:
        data = text.encode("latin-1") if not text.isascii() or "\x1b" in text else b""
    except UnicodeEncodeError:  # already in its own script
        data = b""
    if data:
        stated = [*_as_declared(data, dataset), *_decoded(data, ["utf-8"])]
        guessed = list(_decoded(data, _GUESSED_CHARACTER_SETS))
    readings = [(_regions(one), one) for one in [*stated, text]]
    for regions, one in readings:
        if Region.UNKNOWN not in regions or regions & {Region.CHEST, Region.BOTH, Region.OTHER}:
            return regions, one
    for one in guessed:
        regions = _regions(one)
        if regions & {Region.CHEST, Region.BOTH} and Region.UNKNOWN not in regions:
            return regions, one
    return readings[0]


def _as_declared(data: bytes, dataset: Dataset) -> Iterator[str]:
    """Yield a text in the object's Specific Character Set, if there is one that can be read."""
    with quiet_libraries():
        try:
            if declared := dataset.get("SpecificCharacterSet"):
                yield decode_bytes(data, convert_encodings(declared), TEXT_VR_DELIMS)
        except Exception:  # pydicom raises anything on illegal values
            return


def _decoded(data: bytes, encodings: Iterable[str]) -> Iterator[str]:
    for encoding in encodings:
        try:
            yield data.decode(encoding)
        except UnicodeDecodeError:
            continue


def _regions(text: str) -> set[Region]:
    """Return what the words of a text say."""
    regions = set[Region]()
    for token in _TOKEN.findall(_normal(text)):
        is_spaced = token[0] < _FIRST_UNSPACED and not "\u1100" <= token[0] <= "\u11ff"
        if is_spaced and not _JOINED_WORDS.fullmatch(token):
            regions.add(Region.UNKNOWN)
            continue
        words = _WORD.findall(token)
        regions |= {_REGION_OF_WORD[word] for word in words}
        if sum(map(len, words)) < len(token):
            regions.add(Region.UNKNOWN)
    # A number without a region may be any code, such as XR0023, and other bytes may be any text.
    if regions <= {Region.NONE} and any(c.isdecimal() or not c.isascii() for c in text):
        regions.add(Region.UNKNOWN)
    return regions
