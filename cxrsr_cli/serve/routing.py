"""Rules and their keys in YAML: which objects are upscaled how, and where the outputs go."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.common.yaml_config import StrOrList
from cxrsr_cli.errors import ConfigError
from cxrsr_cli.options import OptionInfo, UpscaleOptions
from cxrsr_cli.serve.queue import QueueItem

_FORBID: dict[str, Any] = {"extra": "forbid"}

_Texts = Annotated[tuple[str, ...], StrOrList]

_MAX_DESCRIPTION_LENGTH = 64
"""Characters of a value of VR LO (PS3.5 table 6.2-1). Longer values are cut, because a regular
expression blocks every thread while it runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleCondition:
    """The objects that a rule matches. Conditions that are not given match all objects.

    Attributes
    ----------
    calling_ae, called_ae : tuple of str
        Allowed AE titles of the association.
    modality, body_part : tuple of str
        Allowed values of Modality and Body Part Examined, in upper or lower case; ``""``
        matches objects without a value.
    description : str or None
        Regular expression that is searched in the first 64 characters of Series
        Description and Study Description, ignoring case.
    min_side, max_side : int or None
        Inclusive limits of Rows and Columns. Objects without both do not match.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    calling_ae: _Texts = ()
    called_ae: _Texts = ()
    modality: _Texts = ()
    body_part: _Texts = ()
    description: str | None = None
    min_side: int | None = None
    max_side: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for conditions that no object can match."""
        if self.description is not None:
            try:
                re.compile(self.description)
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"description is not a regular expression ({error})") from None
        sides = [side for side in (self.min_side, self.max_side) if side is not None]
        if any(side < 1 for side in sides):
            raise ValueError("min_side and max_side must be at least 1")
        if sides != sorted(sides):
            raise ValueError("min_side is larger than max_side")

    def matches(self, item: QueueItem, dataset: Dataset) -> bool:
        """Tell whether an object matches; an illegal value does not match.

        Parameters
        ----------
        item : QueueItem
            Its entry in the queue.
        dataset : pydicom.Dataset
            The object. Its pixel data are not used.
        """
        with quiet_libraries():
            return (
                _is_allowed(item.calling_ae, self.calling_ae)
                and _is_allowed(item.called_ae, self.called_ae)
                and _is_one_of(dataset, "Modality", self.modality)
                and _is_one_of(dataset, "BodyPartExamined", self.body_part)
                and self._matches_description(dataset)
                and self._matches_size(dataset)
            )

    def _matches_description(self, dataset: Dataset) -> bool:
        if self.description is None:
            return True
        texts = (_description(dataset, word) for word in ("SeriesDescription", "StudyDescription"))
        return any(re.search(self.description, text, re.IGNORECASE) for text in texts)

    def _matches_size(self, dataset: Dataset) -> bool:
        if self.min_side is None and self.max_side is None:
            return True
        sides = [_value(dataset, "Rows"), _value(dataset, "Columns")]
        return all(
            isinstance(side, int)
            and side >= (self.min_side or 1)
            and (self.max_side is None or side <= self.max_side)
            for side in sides
        )


def _check_rule_options(given: object) -> object:
    """Refuse options that hold for the whole node; take a text alone for a list of one."""
    if not isinstance(given, dict):
        return given
    declared = {one.name: one for one in fields(UpscaleOptions)}
    plain = dict(given)
    for name in plain.keys() & declared.keys():
        if not OptionInfo.of(declared[name]).in_rules:
            raise ValueError(f"{name} cannot be set in a rule")
        if isinstance(declared[name].default, frozenset) and isinstance(plain[name], str):
            plain[name] = [plain[name]]
    return plain


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRule:
    """What is done with the objects that it matches.

    Attributes
    ----------
    name : str
        Name in log and queue.
    when : RuleCondition
        The objects that it matches.
    upscale : UpscaleOptions
        Options of the upscaling.
    send_to : tuple of str
        Names of the destinations that get the output.
    ignore : bool
        Acknowledge the objects and drop them.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    name: str
    when: RuleCondition = field(default_factory=RuleCondition)
    upscale: Annotated[UpscaleOptions, BeforeValidator(_check_rule_options)] = field(
        default_factory=UpscaleOptions
    )
    send_to: _Texts = ()
    ignore: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError unless the rule either sends or ignores."""
        if self.ignore == bool(self.send_to):
            raise ValueError(f"rule '{self.name}' needs either send_to or ignore: true")


def first_match(
    rules: Sequence[RoutingRule], item: QueueItem, dataset: Dataset
) -> RoutingRule | None:
    """Return the first rule that matches an object."""
    return next((rule for rule in rules if rule.when.matches(item, dataset)), None)


def validate_rules(rules: Sequence[RoutingRule], destinations: Sequence[str]) -> None:
    """Raise ConfigError for an empty rule list, duplicate names, unknown destinations.

    Raises
    ------
    ConfigError
        Naming the rule.
    """
    if not rules:
        raise ConfigError(
            "rules: at least one is needed; without rules, every object would be dropped"
        )
    names = [rule.name for rule in rules]
    for rule in rules:
        if names.count(rule.name) > 1:
            raise ConfigError(f"two rules are named '{rule.name}'")
        for name in rule.send_to:
            if name not in destinations:
                known = ", ".join(destinations) or "none"
                raise ConfigError(
                    f"rule '{rule.name}' sends to '{name}', which is not a destination; "
                    f"known destinations: {known}"
                )


def _value(dataset: Dataset, keyword: str) -> object:
    """Return a value as pydicom has it; None if absent, an opaque object if illegal."""
    try:
        return dataset.get(keyword)
    except Exception:  # pydicom raises errors of many types for illegal values
        return object()


def _is_one_of(dataset: Dataset, keyword: str, wanted: Sequence[str]) -> bool:
    if not wanted:
        return True
    value = _value(dataset, keyword)
    term = "" if value is None else value
    return isinstance(term, str) and _normalize(term) in map(_normalize, wanted)


def _normalize(term: str) -> str:
    return term.strip().upper()


def _description(dataset: Dataset, keyword: str) -> str:
    value = _value(dataset, keyword)
    if isinstance(value, MultiValue):  # the value has a backslash, which VR LO does not allow
        value = "\\".join(str(one) for one in value)
    return value[:_MAX_DESCRIPTION_LENGTH] if isinstance(value, str) else ""


def _is_allowed(value: str, wanted: Sequence[str]) -> bool:
    return not wanted or value in wanted
