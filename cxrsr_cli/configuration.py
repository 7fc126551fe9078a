"""YAML in, checked dataclasses out; what is wrong is said by key."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from cxrsr_cli.errors import ConfigError

_T = TypeVar("_T")


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds keys and values.

    Raises
    ------
    ConfigError
        If it cannot be read or holds something else.
    """
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {type(error).__name__}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{path} holds no mapping of keys to values")
    return plain


def checked(adapter: TypeAdapter[_T], plain: dict[str, Any], path: Path) -> _T:
    """Turn plain values into what they describe.

    Parameters
    ----------
    adapter : pydantic.TypeAdapter
        Knows the type.
    plain : dict
        As read.
    path : Path
        Where from, for the message.

    Raises
    ------
    ConfigError
        Naming every key that is unknown or has an illegal value.
    """
    try:
        return adapter.validate_python(plain)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors()
        ]
        raise ConfigError(f"{path}: " + "; ".join(lines)) from error
