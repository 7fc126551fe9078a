"""Read YAML configurations into validated dataclasses; errors name the key."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BeforeValidator, TypeAdapter, ValidationError

from cxrsr_cli.common.byte_size import parse_byte_size
from cxrsr_cli.common.files import open_regular
from cxrsr_cli.errors import ConfigError

_T = TypeVar("_T")

ByteSize = Annotated[
    int, BeforeValidator(lambda given: parse_byte_size(given) if isinstance(given, str) else given)
]
"""A number of bytes, or a size such as ``4GiB``."""

StrOrList = BeforeValidator(lambda given: [given] if isinstance(given, str) else given)
"""Annotation for a list of strings that may be given as one string."""


_MERGE = "tag:yaml.org,2002:merge"
_MAX_MERGED_KEYS = 10_000
"""Of a mapping with merge keys (``<<``), which can multiply at each level."""
_MAX_MERGED_MAPPINGS = 100
"""Of one merge key, each with as many keys."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which PyYAML would silently keep the last."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, value in node.value:
            is_list = key.tag == _MERGE and isinstance(value, yaml.SequenceNode)
            if is_list and len(value.value) > _MAX_MERGED_MAPPINGS:
                raise yaml.YAMLError("a merge key has too many mappings")
        super().flatten_mapping(node)
        if len(node.value) > _MAX_MERGED_KEYS:
            raise yaml.YAMLError("merge keys make too many keys")

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"the key {key.value!a} is given twice, also on line {line}")
            seen.add((key.tag, key.value))
        return node


def load_yaml_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that is a mapping.

    Raises
    ------
    ConfigError
        If it cannot be read, is not a mapping, or gives a key twice.
    """
    try:
        with open_regular(path) as file:
            values = _parse(file.read().decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or 'I/O error'}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read {path}: it is not UTF-8") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    except Exception as error:  # for example a date with month 99, which PyYAML does not catch
        raise ConfigError(f"{path} is not readable YAML: {_describe(error)}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is not a mapping of keys to values")
    return values


def _parse(text: str) -> object:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _describe(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return f"a value is invalid ({error})"


def validate(
    adapter: TypeAdapter[_T], values: dict[str, Any], path: Path, *, allow_empty: bool = True
) -> _T:
    """Convert the values of a YAML file to a typed object.

    Parameters
    ----------
    adapter : pydantic.TypeAdapter
        For the type of the result.
    values : dict
        As read from the file.
    path : Path
        The file, for the error message.
    allow_empty : bool
        Whether a key may have no value.

    Raises
    ------
    ConfigError
        Names every key that is unknown or has an invalid value.
    """
    try:
        _refuse(path, _unrepresentable_values(values, "", allow_empty=allow_empty, seen=set()))
        result = adapter.validate_python(values)
    except ValidationError as error:
        _refuse(path, (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()))
        raise
    except (OverflowError, RecursionError) as error:
        raise ConfigError(f"{path}: {_describe(error)}") from error
    _refuse(path, _wrongly_coerced(values, result, ""))
    return result


def _refuse(path: Path, faults: Iterator[str]) -> None:
    if lines := list(faults):
        raise ConfigError(f"{path}: " + "; ".join(lines))


def _unrepresentable_values(
    values: object, key_path: str, *, allow_empty: bool, seen: set[int]
) -> Iterator[str]:
    """Yield messages about values that no configuration can have."""
    if isinstance(values, dict | list):
        if id(values) in seen:  # an alias, possibly of one of its parents
            return
        seen.add(id(values))
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            if isinstance(key, str) and not _is_text(key):
                yield f"{key_path or 'the file'}: a key contains an invalid character"
            else:
                yield from _unrepresentable_values(
                    value, _join(key_path, key), allow_empty=allow_empty, seen=seen
                )
    elif isinstance(values, str) and not _is_text(values):
        yield f"{key_path}: contains an invalid character"
    elif values is None and not allow_empty:
        yield f"{key_path}: has no value; give one or remove the key"


def _wrongly_coerced(values: object, result: object, key_path: str) -> Iterator[str]:
    """Yield messages about values that pydantic converts to another type."""
    if isinstance(values, dict):
        for key, value in values.items():
            part = result.get(key) if isinstance(result, dict) else getattr(result, str(key), None)
            yield from _wrongly_coerced(value, part, _join(key_path, key))
    elif isinstance(values, list) and isinstance(result, list | tuple):
        for index, (value, part) in enumerate(zip(values, result, strict=False)):
            yield from _wrongly_coerced(value, part, _join(key_path, index))
    elif (
        isinstance(values, bool)
        and isinstance(result, int | float)
        and not isinstance(result, bool)
    ):
        yield f"{key_path}: must be a number, not true or false"
    elif values == "" and isinstance(result, Path):
        yield f"{key_path}: must be a path, and is empty"


def _join(key_path: str, key: object) -> str:
    return f"{key_path}.{key}" if key_path else str(key)


def _is_text(text: str) -> bool:
    """Return whether a string has no NUL and no half of a surrogate pair, for paths and logs."""
    return not any(one == "\0" or "\ud800" <= one <= "\udfff" for one in text)
