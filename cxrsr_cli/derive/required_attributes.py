"""Attributes that the standard requires of an object and that it lacks.

From the tables of PS3.3 that highdicom ships. Only what holds for every object
of a SOP Class is checked: attributes of Type 1 and 2 in mandatory modules, and
in the items of sequences that are present. Conditions (Types 1C and 2C,
modules of usage C) are prose, which no table evaluates.
"""

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


class AttributeType(Enum):
    """What an attribute's Data Element Type demands (PS3.5 7.4)."""

    PRESENT_WITH_VALUE = "1"
    PRESENT = "2"


@dataclass(frozen=True, slots=True)
class MissingAttribute:
    """An attribute that should be there.

    Attributes
    ----------
    path : str
        Keywords, and numbers of items from 0, such as
        ``ViewCodeSequence[0].CodeMeaning``. Never a value.
    type : AttributeType
        Of Type 1 and absent or empty, or of Type 2 and absent.
    module : str
        The module that demands it, as highdicom names it: ``general-series``.
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
    """What is required of a data set or of a sequence's items, by keyword."""

    required: dict[str, _Requirement]
    sequences: dict[str, "_Level"]


def has_iod_table(sop_class_uid: str) -> bool:
    """Tell whether there is a table for a SOP Class."""
    return _table(sop_class_uid) is not None


def missing_attributes(dataset: Dataset) -> set[MissingAttribute]:
    """Find what the standard requires and the object lacks.

    Parameters
    ----------
    dataset : pydicom.Dataset
        A whole object. Its elements are not parsed in place: what were the
        file's bytes stays so.

    Returns
    -------
    set of Missing
        Empty also for a SOP Class without a table: ask `has_iod_table`.
    """
    table = _table(str(dataset.get("SOPClassUID")))
    return set(_missing(dataset, table, "")) if table else set()


def lost_attributes(derived: Dataset, source: Dataset) -> set[MissingAttribute]:
    """Find what the standard requires, the source has and the derived object lacks.

    The tables are large: they are only read when something was lost at all.

    Parameters
    ----------
    derived, source : pydicom.Dataset
        Whole objects, not parsed in place.

    Returns
    -------
    set of Missing
        Empty also for a SOP Class without a table.
    """
    if not _lacks_something(derived, source):
        return set()
    return missing_attributes(derived) - missing_attributes(source)


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
    """Tell whether an element, or its value, is in the source only."""
    for tag in source.keys():
        before, after = source.get_item(tag), derived.get_item(tag)
        if after is before or _may_go(tag):
            continue
        if after is None or (_is_empty(after) and not _is_empty(before)):
            return True
        # Bytes were never touched; items are only ever appended, or all new.
        if isinstance(after.value, Sequence):
            pairs = zip(after.value, _items(before), strict=False)
            if any(_lacks_something(*pair) for pair in pairs):
                return True
    return False


def _may_go(tag: BaseTag) -> bool:
    """Tell whether no object is required to have an element."""
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
    """Return a sequence's items; they are parsed on the side if they are still bytes."""
    if isinstance(element, RawDataElement):
        element = Dataset({BaseTag(element.tag): element})[element.tag]
    value = element.value if element is not None else None
    return value if isinstance(value, Sequence) else Sequence()


@cache
def _table(sop_class_uid: str) -> _Level | None:
    # Here and not above: reading the tables takes half a second and 100 MB.
    # highdicom has them in this form from 0.28 on, and promises them to nobody.
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
            stated = _Requirement(AttributeType(attribute["type"]), module["key"])
            # Where modules differ the strictest holds.
            known = level.required.get(attribute["keyword"])
            if known is None or stated.type.value < known.type.value:
                level.required[attribute["keyword"]] = stated
    return table
