"""Find attributes that the standard requires of an object and that the object lacks.

The tables of PS3.3 come from highdicom. Only what holds for every object of a SOP Class is
checked: attributes of Type 1 and 2 in mandatory modules, and in the items of sequences that
are present. Conditional requirements (Types 1C and 2C, modules of usage C) are prose in the
standard, so no table can evaluate them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import TypeAlias

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from cxrsr_cli.derive.provenance import INVALIDATED

_OF_EQUIPMENT = re.compile(r"^ContributingEquipmentSequence\[\d+\]\.")


class AttributeType(Enum):
    """Data Element Types 1 and 2 (PS3.5 7.4)."""

    PRESENT_WITH_VALUE = "1"
    PRESENT = "2"


@dataclass(frozen=True, slots=True)
class MissingAttribute:
    """An attribute that is required and missing.

    Attributes
    ----------
    path : str
        Keywords and item numbers from 0, such as ``ViewCodeSequence[0].CodeMeaning``.
    type : AttributeType
        Type 1: it is absent or empty. Type 2: it is absent.
    module : str
        The module that requires it, as highdicom names it: ``general-series``.
    """

    path: str
    type: AttributeType
    module: str


@dataclass(frozen=True, slots=True)
class _Requirement:
    type: AttributeType
    module: str


@dataclass(frozen=True, slots=True)
class _Level:
    """Requirements on a data set or on the items of a sequence, by keyword."""

    required: dict[str, _Requirement]
    sequences: dict[str, "_Level"]


def missing_attributes(dataset: Dataset) -> set[MissingAttribute]:
    """Find the attributes that the standard requires and a whole object lacks.

    Raw elements are not parsed in place. A SOP Class without a table requires nothing.
    """
    table = _table(str(dataset.get("SOPClassUID")))
    return set(_missing(dataset, table, "")) if table else set()


def lost_attributes(derived: Dataset, source: Dataset) -> set[MissingAttribute]:
    """Find the required attributes that the source has and the derived object lacks.

    The tables are large, so they are read only if anything was lost. Raw elements are not
    parsed in place. The source's equipment, which became an item, may have the gaps that it had.
    """
    if not _lacks_something(derived, source):
        return set()
    known = missing_attributes(source)
    paths = {gap.path for gap in known}
    return {
        gap
        for gap in missing_attributes(derived) - known
        if _OF_EQUIPMENT.sub("", gap.path) not in paths
    }


def _missing(dataset: Dataset, level: _Level, path: str) -> Iterator[MissingAttribute]:
    for keyword, requirement in level.required.items():
        element = _element(dataset, keyword)
        needs_value = requirement.type is AttributeType.PRESENT_WITH_VALUE
        if element is None or (needs_value and _is_empty(element)):
            yield MissingAttribute(path + keyword, requirement.type, requirement.module)
    for keyword, inner in level.sequences.items():
        for number, item in enumerate(_items(_element(dataset, keyword))):
            yield from _missing(item, inner, f"{path}{keyword}[{number}].")


def _lacks_something(derived: Dataset, source: Dataset) -> bool:
    """Return whether an element or its value is only in the source."""
    for tag in source.keys():
        before, after = source.get_item(tag), derived.get_item(tag)
        if after is before or _is_never_required(tag):
            continue
        if after is None or (_is_empty(after) and not _is_empty(before)):
            return True
        # Raw elements were not changed; in sequences items are only appended or all new.
        if isinstance(after.value, Sequence):
            pairs = zip(after.value, _items(before), strict=False)
            if any(_lacks_something(*pair) for pair in pairs):
                return True
    return False


def _is_never_required(tag: BaseTag) -> bool:
    """Return whether no object is required to have an element."""
    return tag.is_private or keyword_for_tag(tag) in INVALIDATED


_Element: TypeAlias = DataElement | RawDataElement | None


def _element(dataset: Dataset, keyword: str) -> _Element:
    tag = tag_for_keyword(keyword)
    return None if tag is None else dataset.get_item(tag)


def _is_empty(element: _Element) -> bool:
    if isinstance(element, DataElement):
        return bool(element.is_empty)
    return element is None or not element.value


def _items(element: _Element) -> Sequence:
    """Return the items of a sequence; a raw element is parsed in a copy."""
    if isinstance(element, RawDataElement):
        element = Dataset({BaseTag(element.tag): element})[element.tag]
    value = element.value if element is not None else None
    return value if isinstance(value, Sequence) else Sequence()


@cache
def _table(sop_class_uid: str) -> _Level | None:
    # Imported here, because reading the tables takes half a second and 100 MB. The module
    # is private; highdicom has it from 0.28 on and may change it in any release.
    try:
        from highdicom import _standard_utils as standard
    except ImportError:
        return None
    iod = standard.get_sop_class_iod_map().get(sop_class_uid, "")
    modules = standard.get_iod_module_map().get(iod)
    if modules is None:
        return None
    table = _Level({}, {})
    attributes = standard.get_module_attribute_map()
    for module in modules:
        if module["usage"] != "M":
            continue
        for attribute in attributes[module["key"]]:
            if attribute["type"] not in ("1", "2"):
                continue
            level = table
            for sequence in attribute["path"]:
                level = level.sequences.setdefault(sequence, _Level({}, {}))
            requirement = _Requirement(AttributeType(attribute["type"]), module["key"])
            # Of several modules, the strictest requirement holds.
            known = level.required.get(attribute["keyword"])
            if known is None or requirement.type.value < known.type.value:
                level.required[attribute["keyword"]] = requirement
    return table
