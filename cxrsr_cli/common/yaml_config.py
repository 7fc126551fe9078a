"""YAML in, checked dataclasses out; what is wrong is said by key."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BeforeValidator, TypeAdapter, ValidationError

from cxrsr_cli.common.byte_size import parse_byte_size
from cxrsr_cli.errors import ConfigError

_T = TypeVar("_T")

ByteSize = Annotated[
    int, BeforeValidator(lambda given: parse_byte_size(given) if isinstance(given, str) else given)
]
"""A number, or a size such as ``4GiB``."""

StrOrList = BeforeValidator(lambda given: [given] if isinstance(given, str) else given)
"""For a list of texts: a text alone is a list of one."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice; PyYAML would keep the last and say nothing."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                where = f"on line {key.start_mark.line + 1}"
                raise yaml.YAMLError(f"the key {key.value!a} is given twice, again {where}")
            seen.add((key.tag, key.value))
        return node


def load_yaml_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds keys and values.

    Raises
    ------
    ConfigError
        If it cannot be read, holds something else, or gives a key twice.
    """
    try:
        plain = _plain(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {type(error).__name__}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    except Exception as error:  # a date of month 99 and the like; PyYAML has no one kind for them
        raise ConfigError(f"{path} is not YAML that can be read: {_describe(error)}") from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{path} holds no mapping of keys to values")
    return plain


def _plain(text: str) -> object:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _describe(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return f"a value is illegal ({error})"


def validate(
    adapter: TypeAdapter[_T], plain: dict[str, Any], path: Path, *, allow_empty: bool = True
) -> _T:
    """Turn plain values into what they describe.

    Parameters
    ----------
    adapter : pydantic.TypeAdapter
        Knows the type.
    plain : dict
        As read.
    path : Path
        Where from, for the message.
    empty : bool
        Whether a key may be without a value.

    Raises
    ------
    ConfigError
        Naming every key that is unknown or has an illegal value.
    """
    try:
        _refuse(path, _unrepresentable_values(plain, "", empty=allow_empty, seen=set()))
        made = adapter.validate_python(plain)
    except ValidationError as error:
        _refuse(
            path,
            (
                f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
                for item in error.errors()
            ),
        )
        raise
    except (OverflowError, RecursionError) as error:
        raise ConfigError(f"{path}: {_describe(error)}") from error
    _refuse(path, _wrongly_coerced(plain, made, ""))
    return made


def _refuse(path: Path, faults: Iterator[str]) -> None:
    if lines := list(faults):
        raise ConfigError(f"{path}: " + "; ".join(lines))


def _unrepresentable_values(
    plain: object, place: str, *, empty: bool, seen: set[int]
) -> Iterator[str]:
    """Tell of what no value can be."""
    if isinstance(plain, dict | list):
        if id(plain) in seen:  # an alias, perhaps of what it is in
            return
        seen.add(id(plain))
        for key, value in plain.items() if isinstance(plain, dict) else enumerate(plain):
            if isinstance(key, str) and not _is_text(key):
                yield f"{place or 'the file'}: a key holds a character that no text has"
            else:
                yield from _unrepresentable_values(
                    value, _under(place, key), empty=empty, seen=seen
                )
    elif isinstance(plain, str) and not _is_text(plain):
        yield f"{place}: holds a character that no text has"
    elif plain is None and not empty:
        yield f"{place}: is without a value; give one, or leave the key out"


def _wrongly_coerced(plain: object, made: object, place: str) -> Iterator[str]:
    """Tell of what pydantic takes for something else."""
    if isinstance(plain, dict):
        for key, value in plain.items():
            part = made.get(key) if isinstance(made, dict) else getattr(made, str(key), None)
            yield from _wrongly_coerced(value, part, _under(place, key))
    elif isinstance(plain, list) and isinstance(made, list | tuple):
        for index, (value, part) in enumerate(zip(plain, made, strict=False)):
            yield from _wrongly_coerced(value, part, _under(place, index))
    elif isinstance(plain, bool) and isinstance(made, int | float) and not isinstance(made, bool):
        yield f"{place}: is a number, not true or false"
    elif plain == "" and isinstance(made, Path):
        yield f"{place}: is a path, and empty"


def _under(place: str, key: object) -> str:
    return f"{place}.{key}" if place else str(key)


def _is_text(text: str) -> bool:
    """Tell whether it can be in a path and a log: no NUL, no half of a surrogate pair."""
    return not any(one == "\0" or "\ud800" <= one <= "\udfff" for one in text)
