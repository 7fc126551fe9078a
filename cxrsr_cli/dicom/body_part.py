"""Whether an object shows the chest, by the texts and codes that devices and archives write.

Body Part Examined is free text in practice: another language, with the view, the device or the
ward beside the region. So it is read word by word. Each line of `WORDS` and `CODES` is a rule.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from enum import Enum, auto
from fnmatch import fnmatchcase, translate
from functools import lru_cache
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
    APART = auto()
    """As NONE, if no other word is joined to it: RIBBED is not RIB and BED."""
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
    (Region.CHEST, "HEMITHORAX PULMO PULMONES COSTAE"),
    (Region.CHEST, "LUNGE LUNGEN BRUSTKORB RIPPE RIPPEN BRUSTBEIN HERZ"),  # German
    (Region.CHEST, "POITRINE POUMON POUMONS COEUR"),  # French
    (Region.CHEST, "TORAX PECHO PULMON COSTILLA COSTILLAS PARRILLA ESTERNON CORAZON"),  # Spanish
    (Region.CHEST, "PEITO PULMAO PULMOES COSTELA COSTELAS COSTAIS ESTERNO"),  # Portuguese
    (Region.CHEST, "TORACE EMITORACE POLMONE POLMONI COSTE COSTOLE STERNO"),  # Italian
    (Region.CHEST, "PLAMANI PULMONAR PULMONARA"),  # Romanian
    (Region.CHEST, "LONGEN BORSTKAS RIBBEN"),  # Dutch
    (Region.CHEST, "LUNGOR BROSTKORG REVBEN LUNGER BRYSTKASSE RIBBEIN"),  # Scandinavian
    (Region.CHEST, "KEUHKO KEUHKOT RINTAKEHA KYLKILUUT KOPS KOPSUD RINDKERE"),  # Finnish, Estonian
    (Region.CHEST, "KLATKA PLUC PLUCA ZEBRA MOSTEK"),  # Polish
    (Region.CHEST, "HRUD HRUDNIK HRUDNIKU PLICE SRDCE PLJUCA TORAKS PRSNI"),  # Czech to Slovene
    (Region.CHEST, "MELLKAS TÜDŐ BORDAK"),  # Hungarian
    (Region.CHEST, "KRUTINE PLAUCIAI KRUSKURVIS PLAUSAS"),  # Lithuanian, Latvian
    (Region.CHEST, "AKCIGER AKCIGERLER GOGUS KABURGA"),  # Turkish
    (Region.CHEST, "DADA PARU NGUC NGỰC PHOI"),  # Indonesian, Malay, Vietnamese
    (Region.CHEST, "ΘΩΡΑΞ ΘΩΡΑΚΑΣ ΘΩΡΑΚΟΣ ΘΩΡΑΚΑ ΠΝΕΥΜΟΝΕΣ ΠΛΕΥΡΕΣ"),  # Greek
    (Region.CHEST, "ОГК ОГП КЛЕТКА КЛЕТКИ ЛЕГКИЕ ЛЕГКИХ РЕБРА ТОРАКС ФЛГ ФЛЮОРОГРАФИЯ"),  # Russian
    (Region.CHEST, "КЛІТКА КЛІТКИ КЛIТКА ЛЕГЕНІ ЛЕГЕНЬ КОШ ПЛУЋА"),  # Ukrainian to Serbian
    (Region.CHEST, "חזה ריאות צלעות صدر الصدر رئة الرئة الرئتين سینه ریه छाती"),
    (Region.CHEST, "胸 胸部 胸片 胸写 肺 心肺 肺部 心胸 肋 肋骨"),  # Chinese, Japanese
    (Region.CHEST, "胸廓 胸郭 胸腔 胸膜 胸骨 心脏 心臓 心臟 肺尖 肺野 肋弓"),
    (Region.CHEST, "흉부 가슴 폐 늑골 흉골 ทรวงอก ปอด"),  # Korean, Thai
    (Region.BESIDE, "ABDOMEN ABDOMENS ABDO ABD ABDOMINAL NECK KUB UPPERABDOMEN"),
    (Region.BESIDE, "BAUCH HALS COU VENTRE CUELLO VIENTRE PESCOCO ADDOME COLLO BUIK BUK MAGE"),
    (Region.BESIDE, "VATSA BRZUCH SZYJA BRICHO KRK HAS NYAK KARIN BATIN BOYUN PERUT BUNG"),
    (Region.BESIDE, "ΚΟΙΛΙΑ ЖИВОТ БРЮШНАЯ ОБП ШЕЯ בטן بطن البطن 腹 腹部 颈 颈部 頸 頸部 복부 ท้อง"),
    (Region.BOTH, "BABYGRAM BABYGRAMM BABYGRAMME THORACOABDOMINAL TORACOABDOMINAL 胸腹 胸腹部"),
    # The spine, in all languages of the lines above
    (Region.OTHER, "SPINE SPINES TSPINE CSPINE LSPINE SSPINE TLSPINE CTSPINE LSSPINE *SPINAL*"),
    (Region.OTHER, "*VERTEBR* *LUMBAR* *LUMBAL* LUMBO* LUMBER SACRUM *SACRAL* SACRO* COCCYX"),
    (Region.OTHER, "COLUMN *SCOLIO* *SKOLIO* CERVIC* ZERVIK* SERVIK*"),
    (Region.OTHER, "*WIRBEL* WS BWS HWS LWS BWK HWK LWK LENDEN* KREUZBEIN STEISSBEIN"),  # German
    (Region.OTHER, "RACHIS RACHIDIEN RACHIDE COLONNE *LOMBAIRE *LOMBAIRES *OSACRE *OSACREE"),
    (Region.OTHER, "COLUMNA ESPALDA COLUNA COSTAS *LOMBAR *LOMBARES COLONNA *LOMBARE *LOMBARI"),
    (Region.OTHER, "SCHIENA COLOANA *LOMBARA *WERVEL* RUG RYGG* *RYGG *RYGGEN *VIRVEL*"),
    (Region.OTHER, "KOTA HALSKOTA LANDKOTA KOTOR KOTPELARE"),
    (Region.OTHER, "RANKA LANNERANKA RINTARANKA SELKA LULISAMMAS SELGROOG"),
    (Region.OTHER, "*KREGOSLUP* LEDZW* KRZYZOW* PATER PATERE PATERI BEDERNI CHRBTIC* OBRATEL"),
    (Region.OTHER, "HRBTENIC* KRALJEZ* KICMA KICME *GERINC* *CSIGOLYA* AGYEKI STUBUR* MUGURKAUL*"),
    (Region.OTHER, "OMURGA OMURGASI OMUR LOMBER BELAKANG SONG LƯNG THAT"),
    (Region.OTHER, "*ΣΠΟΝΔΥΛ* ΟΣΦΥ* ΑΥΧΕΝΙΚ* ΜΟΙΡΑ"),
    (Region.OTHER, "ПОЗВОНО* *ПОЯСНИЧ* ШЕЙН* КРЕСТЕЦ *КРЕСТЦ* КОПЧИК* ГОП ПОП ШОП ПКОП"),
    (Region.OTHER, "ХРЕБЕТ ХРЕБТ* ПОПЕРЕК* КРИЖ* ГРЪБНА* ПРЕШЛЕН* КИЧМ*"),
    (Region.OTHER, "שדרה השדרה חוליות מותני גב الفقري فقري فقرات الفقرات قطني القطنية ظهر الظهر"),
    (Region.OTHER, "کمر रीढ़ कमर 胸椎 胸腰椎 椎 脊 髓 腰 胸腰 颈胸 頸胸 骶 仙骨 仙腸 背部 尾骨"),
    (Region.OTHER, "흉추 요추 경추 천추 척추 허리 สันหลัง เอว"),
    # The pelvis and the hip
    (Region.OTHER, "HIP HIPS *PELVI* PELV HUFT* HUEFT* BECKEN HANCHE HANCHES BASSIN"),
    (Region.OTHER, "CADERA CADERAS QUADRIL BACIA ANCA ANCHE BACINO HEUP HEUPEN BEKKEN HOFT HOFTE"),
    (Region.OTHER, "HOFTLED BACKEN BAEKKEN LONKKA LANTIO PUUS VAAGEN BIODR* MIEDNIC*"),
    (Region.OTHER, "KYCEL* PANEV KUK ZDJELICA MEDENICA CSIPO MEDENCE DUBUO KLUBAS GURNS KALCA"),
    (Region.OTHER, "SOLD BAZIN PINGGUL PANGGUL HANG CHAU ΙΣΧΙΟ ΙΣΧΙΑ ΛΕΚΑΝΗ ΛΕΚΑΝΗΣ"),
    (Region.OTHER, "ТАЗ ТАЗА ТАЗОБЕДР* БЕДРО БЕДРА БЕДРЕН* КУЛЬШ* СТЕГН* ירך אגן حوض الحوض ورك"),
    (Region.OTHER, "فخذ لگن कूल्हा 髋 股 臀 骨盆 骨盤 골반 고관절 สะโพก เชิงกราน"),
    # The shoulder and the arm
    (Region.OTHER, "*SHOULDER* *CLAVIC* *CLAVIK* *SCAPUL* ARM ARMS *HUMER* ELBOW ELBOWS"),
    (Region.OTHER, "*FOREARM* WRIST WRISTS HAND HANDS FINGER FINGERS THUMB *BRACHI* ANTEBR* ULNA"),
    (Region.OTHER, "*SCHULTER* SCHLUSSELBEIN SCHLUESSELBEIN OBERARM UNTERARM ELLENBOGEN DAUMEN"),
    (Region.OTHER, "EPAULE EPAULES BRAS COUDE POIGNET POIGNETS DOIGT HOMBRO BRAZO CODO MUNECA"),
    (Region.OTHER, "MANO OMBRO BRACO COTOVELO PUNHO MAO UMERO SPALLA BRACCIO AVAMBRACCIO GOMITO"),
    (Region.OTHER, "POLSO OMERO SCHOUDER BOVENARM ONDERARM ELLEBOOG POLS SLEUTELBEEN OVERARM"),
    (Region.OTHER, "UNDERARM SKULDER AXEL ARMBAGE ALBUE"),
    (Region.OTHER, "HANDLED NYCKELBEN KRAVEBEN OLKAPAA KYYNARPAA"),
    (Region.OTHER, "RANNE BARK RAMIE OBOJCZYK LOKIEC NADGARSTEK"),
    (Region.OTHER, "REKA RAMENO LOKET ZAPESTI RUKA LAKAT"),
    (Region.OTHER, "VALL KONYOK CSUKLO KULCSCSONT UMAR OMUZ DIRSEK BILEK KOL BAHU SIKU LENGAN VAI"),
    (Region.OTHER, "ΩΜΟΣ ΩΜΟΥ ΑΓΚΩΝΑΣ *ПЛЕЧ* КЛЮЧИЦ* ЛОПАТК* ЛОКТ* КИСТЬ КИСТИ РАМО ЛАКАТ"),
    (Region.OTHER, "כתף מרפק كتف الكتف 肩 肘 腕 臂 肢 手 锁骨 鎖骨 胸锁 胸鎖"),
    (Region.OTHER, "쇄골 흉쇄 어깨 견갑 상완 전완 손목 팔꿈치 ไหล่ ข้อมือ แขน"),
    # The leg
    (Region.OTHER, "LEG LEGS *FEMOR* FEMUR FEMURS THIGH KNEE KNEES PATELLA TIBIA* FIBULA"),
    (Region.OTHER, "ANKLE ANKLES FOOT FEET TOE TOES HEEL CALCANEUS"),
    (Region.OTHER, "KNIE BEIN FUSS *SCHENKEL *GELENK FERSE GENOU GENOUX CUISSE JAMBE CHEVILLE"),
    (Region.OTHER, "RODILLA RODILLAS PIERNA MUSLO TOBILLO JOELHO PERNA COXA TORNOZELO GINOCCHIO"),
    (Region.OTHER, "GAMBA COSCIA CAVIGLIA PIEDE BOVENBEEN ONDERBEEN VOET KNA KNAE LARBEN UNDERBEN"),
    (Region.OTHER, "FOTLED POLVI NILKKA REISI KOLANO STOPA UDO KOLENO KOTNIK STEHNO KOLJENO"),
    (Region.OTHER, "TERD BOKA GENUNCHI GLEZNA COAPSA DIZ AYAK BACAK LUTUT KAKI PAHA GOI"),
    (Region.OTHER, "ΓΟΝΑΤΟ КОЛЕН* КОЛІН* КОЛЯНО ГОЛЕН* СТОПА СТОПЫ ברך ركبة الركبة"),
    (Region.OTHER, "膝 踝 足 腿 趾 髌 胫 脛 腓 무릎 발목 대퇴 เข่า ข้อเท้า"),
    # The head, the breast and others
    (Region.OTHER, "HEAD SKULL BRAIN NOSE JAW TEETH SINUS SINUSES SCHADEL SCHAEDEL CRANE CRANIUM"),
    (Region.OTHER, "CRANIO CRANEO ЧЕРЕП* 头 頭 颅 脑"),
    (Region.OTHER, "脳 머리 두개 BREAST BREASTS MAMMA MAMMO* SEIN"),
    (Region.OTHER, "SEINS MAMA MAMAS SENO 乳 유방"),
    (Region.OTHER, "เต้านม EXTREMITY EXTREMITIES LIMB LIMBS JOINT JOINTS"),
    (Region.OTHER, "MUSCLE СУСТАВ* СУГЛОБ* КОНЕЧНОСТ* ARTERY VEIN AORTA WHOLEBODY"),
    (Region.OTHER, "関節 关节 动脉 動脈 腺 全身 관절"),
    (Region.NONE, "PA AP LAT LATERAL LL RL LLAT RLAT LLD RLD OBL OBLIQUE DECUB DECUBITUS LORDOTIC"),
    (Region.NONE, "FRONTAL SUPINE ERECT UPRIGHT SITTING STANDING INSP EXP INSPIRATION EXPIRATION"),
    (Region.NONE, "PORT PORTABLE MOBILE BEDSIDE ICU NICU XRAY XR RX RTG DX CR DR XP RAY FILM"),
    (Region.NONE, "VIEW VIEWS PED PEDS PEDIATRIC PAED ADULT INFANT NEONATE"),
    (Region.NONE, "AUFNAHME BETT LIEGEND UEBERSICHT GRAFISI GRAFIA RONTGEN ROENTGEN PROFIL"),
    (Region.NONE, "UNKNOWN UNDEFINED UNSPECIFIED NONE NULL"),
    (Region.APART, "AND BED NA"),
    (
        Region.NONE,
        "部 片 正 位 正位 侧位 側面 正面 立位 卧位 臥位 床旁 撮影 検査 单纯 単純 X 線 线",
    ),
    (Region.NONE, "侧 側 斜 左 右 双 两 両 后前 前后 後前 前後 背腹 腹背 立 站 坐 座 卧 臥 仰 俯"),
    (Region.NONE, "平片 光 透视 透視 写真 照 拍 摄影 攝影 检查 檢查 像 床边 移动 便携 吸气 呼气"),
    (Region.NONE, "촬영 사진 정면 측면"),
)
"""What the words of a text say. Case, accents and the letters' compatibility forms do not count.
Words may be joined: CHESTPA is CHEST and PA. A word with ``*`` stands for all that it matches.
Scripts without spaces are searched for the words."""

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
_OWN_LETTERS = "\u030b\u031b"
"""Double acute and horn: TÜDŐ is a lung but TUDO is everything, LƯNG is a back but LUNG is not."""
_FIRST_UNSPACED = "\u0e00"
"""Thai. The scripts from here on write words without spaces: Thai, Hangul, kana, Han."""

_GUESSED_CHARACTER_SETS = (
    "gb18030", "cp932", "euc_jp", "cp949", "big5", "cp1251", "iso8859_5", "iso8859_9", "iso8859_2",
    "cp1253", "cp1255", "cp1256", "cp874",
)  # fmt: skip
"""VR CS has ASCII only, so pydicom reads it as Latin-1, and Specific Character Set is often
absent. One of these is believed only if it makes every word known and one of them a chest, or if
an unknown word beside the chest becomes another region."""


def _normal(text: str) -> str:
    """Return a text without case, accents and compatibility forms."""
    if text.isascii():
        return text.upper()
    whole = unicodedata.normalize("NFKD", text.upper().translate(_NO_MARKS))
    bare = (c for c in whole if unicodedata.category(c) != "Mn" or c in _OWN_LETTERS)
    return unicodedata.normalize("NFC", "".join(bare))


_REGION_OF_WORD = {_normal(word): region for region, words in WORDS for word in words.split()}
_REGION_OF_CODE = {code: region for region, codes in CODES for code in codes.split()}
_JOINABLE = {word: of for word, of in _REGION_OF_WORD.items() if of is not Region.APART}
_MAX_WORD_LENGTH = max(map(len, _JOINABLE))
_OTHER_PATTERN = re.compile("|".join(translate(word) for word in _REGION_OF_WORD if "*" in word))
_UNSPACED = {
    word: of
    for word, of in _REGION_OF_WORD.items()
    # One character is often part of a word for another region.
    if word[0] >= _FIRST_UNSPACED and (len(word) > 1 or of is not Region.CHEST)
}
_UNSPACED_WORD = re.compile("|".join(sorted(_UNSPACED, key=len, reverse=True)))
_TOKEN = re.compile(r"(?:[^\W\d_]|[\u0900-\u0963])+")
"""Letters. Python counts the vowel signs of Devanagari among the others."""
_INITIAL = re.compile(r"(?<![^\W\d_])([^\W\d_])[./](?=[^\W\d_](?![^\W\d_]))")
"""N in N/A, P in P.A."""
_NO_REGION = {Region.NONE, Region.APART}
_CHEST = {Region.CHEST, Region.BOTH}
_MAX_TEXT_LENGTH = 64
"""A longer text is not read, so it refuses the object. No value of VR CS, SH or LO is longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyPartTerms:
    """A site's own body parts.

    Attributes
    ----------
    accept, refuse : tuple of str
        Whole values of Body Part Examined, Code Value or Code Meaning, without regard to case
        and accents; ``*`` and ``?`` stand for any characters. What is refused counts most. What
        is accepted is the chest, unless its words or its code state another region.
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
    stated = list[tuple[Set[Region], str]]()
    for statement in _statements(dataset):
        regions, text = _read(statement, dataset)
        if _is_listed(text, terms.refuse):
            regions = {Region.OTHER}
        elif regions <= {*_NO_REGION, Region.UNKNOWN} and _is_listed(text, terms.accept):
            regions = {Region.CHEST}
        stated.append((regions, text))
    part = _judge({region for regions, _ in stated for region in regions})
    texts = [text for regions, text in stated if _judge(regions) is part]
    return StatedBodyPart(part, next(iter(texts or (text for _, text in stated)), ""))


def _judge(regions: Set[Region]) -> BodyPart:
    if regions <= _NO_REGION:
        return BodyPart.NOT_STATED
    if Region.OTHER in regions or not regions & _CHEST:
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


def _is_listed(text: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(_normal(text), _normal(pattern)) for pattern in patterns)


def _read(text: str, dataset: Dataset) -> tuple[Set[Region], str]:
    """Return what a code or the words of a text say, and the text in its character set."""
    if len(text) > _MAX_TEXT_LENGTH:
        return {Region.OTHER}, text
    if region := _REGION_OF_CODE.get(text.upper()):
        return {region}, text
    return _read_words(text, dataset)


def _read_words(text: str, dataset: Dataset) -> tuple[Set[Region], str]:
    """Return what the words of a text say in the character set that is the likeliest."""
    try:
        data = text.encode("latin-1") if not text.isascii() or "\x1b" in text else b""
    except UnicodeEncodeError:  # already in its own script
        data = b""
    stated = [*_as_declared(data, dataset), *_decoded(data, ["utf-8"])] if data else []
    for one in [*stated, text]:
        regions = _regions(one)
        is_certain = Region.UNKNOWN not in regions or Region.OTHER in regions
        if is_certain or (one in stated and regions & _CHEST):
            return regions, one
    guesses = [(_regions(one), one) for one in _decoded(data, _GUESSED_CHARACTER_SETS) if data]
    for regions, one in guesses:
        if regions & _CHEST and Region.UNKNOWN not in regions:
            return regions, one
    if _regions(text) & _CHEST:
        others = (guess for guess in guesses if Region.OTHER in guess[0])
        return next(others, (_regions(text), text))
    likeliest = next(iter(stated), text)
    return _regions(likeliest), likeliest


def _as_declared(data: bytes, dataset: Dataset) -> Iterator[str]:
    """Yield a text in the object's Specific Character Set, if there is one that can be read."""
    if "SpecificCharacterSet" not in dataset:
        return
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


@lru_cache(maxsize=1024)  # the files of an archive state few different texts
def _regions(text: str) -> frozenset[Region]:
    """Return what the words of a text say."""
    regions = set[Region]()
    for token in _TOKEN.findall(_INITIAL.sub(r"\1", _normal(text))):
        if region := _REGION_OF_WORD.get(token):
            regions.add(region)
        elif joined := _joined_regions(token):
            regions |= joined
        else:
            regions.add(Region.OTHER if _OTHER_PATTERN.match(token) else Region.UNKNOWN)
            regions |= {_UNSPACED[word] for word in _UNSPACED_WORD.findall(token)}
    # A number without a region may be any code, such as XR0023, and other bytes may be any text.
    if regions <= _NO_REGION and any(c.isdecimal() or not c.isascii() for c in text):
        regions.add(Region.UNKNOWN)
    return frozenset(regions)


@lru_cache(maxsize=1024)  # the ends of a token are met again and again
def _joined_regions(token: str) -> frozenset[Region]:
    """Return what joined words say, the longest first; nothing if not all are known."""
    for length in range(min(len(token), _MAX_WORD_LENGTH), 0, -1):
        if region := _JOINABLE.get(token[:length]):
            rest = _joined_regions(token[length:])
            if rest or length == len(token):
                return rest | {region}
    return frozenset()
