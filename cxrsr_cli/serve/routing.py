"""Rules: which objects become what, and go where."""

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

_LONGEST_DESCRIPTION = 64
"""Characters of a value of VR LO (PS3.5 table 6.2-1); a peer may send more, and Python's regular
expressions stop every thread for as long as they take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleCondition:
    """What an object must be for a rule to hold; what is not given may be anything.

    Attributes
    ----------
    calling_ae, called_ae : tuple of str
        Application Entity titles of the association, one of them.
    modality, body_part : tuple of str
        Modality and Body Part Examined, one of them, whatever the case; ``""`` stands
        for an object that states none.
    description : str or None
        A regular expression that is found in the first 64 characters of Series
        Description or of Study Description, whatever the case.
    min_side, max_side : int or None
        Bounds of Rows and Columns, themselves included. Neither holds for an object
        that does not state both.
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
        """Refuse what can hold for nothing."""
        if self.description is not None:
            try:
                re.compile(self.description)
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"description is no regular expression ({error})") from None
        sides = [side for side in (self.min_side, self.max_side) if side is not None]
        if any(side < 1 for side in sides):
            raise ValueError("min_side and max_side must be at least 1")
        if sides != sorted(sides):
            raise ValueError("min_side is larger than max_side")

    def matches(self, item: QueueItem, dataset: Dataset) -> bool:
        """Tell whether an object is what is asked for; one with an illegal value is not.

        Parameters
        ----------
        item : Item
            As the queue knows it.
        dataset : pydicom.Dataset
            The object; its pixels are not looked at.
        """
        with quiet_libraries():
            return (
                _among(item.calling_ae, self.calling_ae)
                and _among(item.called_ae, self.called_ae)
                and _is_one_of(dataset, "Modality", self.modality)
                and _is_one_of(dataset, "BodyPartExamined", self.body_part)
                and self._described(dataset)
                and self._sized(dataset)
            )

    def _described(self, dataset: Dataset) -> bool:
        if self.description is None:
            return True
        texts = (_description(dataset, word) for word in ("SeriesDescription", "StudyDescription"))
        return any(re.search(self.description, text, re.IGNORECASE) for text in texts)

    def _sized(self, dataset: Dataset) -> bool:
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
    """What is done with the objects that it holds for.

    Attributes
    ----------
    name : str
        For the log.
    when : When
        Which objects.
    upscale : UpscaleOptions
        How they are upscaled.
    send_to : tuple of str
        Names of destinations; each gets the output.
    ignore : bool
        Acknowledge and drop them instead.
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
        """Refuse a rule that would upscale for nobody."""
        if self.ignore == bool(self.send_to):
            raise ValueError(f"rule '{self.name}' needs either send_to or ignore: true")


def first_match(
    rules: Sequence[RoutingRule], item: QueueItem, dataset: Dataset
) -> RoutingRule | None:
    """Return the first rule that holds for an object."""
    return next((rule for rule in rules if rule.when.matches(item, dataset)), None)


def validate_rules(rules: Sequence[RoutingRule], destinations: Sequence[str]) -> None:
    """Refuse no rules, rules of one name, and those that send to nowhere.

    Raises
    ------
    ConfigError
        Naming the rule.
    """
    if not rules:
        raise ConfigError("rules: there is none, so that all that is received would be dropped")
    names = [rule.name for rule in rules]
    for rule in rules:
        if names.count(rule.name) > 1:
            raise ConfigError(f"two rules are named '{rule.name}'")
        for name in rule.send_to:
            if name not in destinations:
                known = ", ".join(destinations) or "none"
                raise ConfigError(
                    f"rule '{rule.name}' sends to '{name}', which is no destination; "
                    f"those given: {known}"
                )


def _value(dataset: Dataset, keyword: str) -> object:
    """Return a value as pydicom has it, None for none, and nothing of use for an illegal one."""
    try:
        return dataset.get(keyword)
    except Exception:  # pydicom has no one kind for what it cannot convert
        return object()


def _is_one_of(dataset: Dataset, keyword: str, wanted: Sequence[str]) -> bool:
    if not wanted:
        return True
    value = _value(dataset, keyword)
    term = "" if value is None else value
    return isinstance(term, str) and _plain(term) in map(_plain, wanted)


def _plain(term: str) -> str:
    return term.strip().upper()


def _description(dataset: Dataset, keyword: str) -> str:
    value = _value(dataset, keyword)
    if isinstance(value, MultiValue):  # a backslash, which the VR does not allow
        value = "\\".join(str(one) for one in value)
    return value[:_LONGEST_DESCRIPTION] if isinstance(value, str) else ""


def _among(value: str, wanted: Sequence[str]) -> bool:
    return not wanted or value in wanted
