"""docs/architecture.md shows the code as it is, and the code keeps the order on that page."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "cxrsr_cli"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
LAYERS = (
    "errors", "versions", "common", "dicom", "networks", "options", "derive", "inference",
    "images", "upscaler", "metrics", "training", "evaluation", "batch", "verify", "comparison",
    "connections",
    "send", "receive", "serve", "cluster", "commands",
)  # fmt: skip
"""Packages and root modules from the lowest to the highest."""

TABLE_START, TABLE_END = "<!-- modules -->", "<!-- /modules -->"


def modules() -> dict[str, Path]:
    """Return every module with code by its name below the package, such as ``dicom/write``."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return {
        path.relative_to(PACKAGE).with_suffix("").as_posix(): path
        for path in paths
        if path.name not in ("__init__.py", "__main__.py")
    }


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Yield the modules of this package that a module imports, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cxrsr_cli."):
            parent = str(node.module).removeprefix("cxrsr_cli.").replace(".", "/")
            for alias in node.names:
                name = f"{parent}/{alias.name}"
                yield name if name in MODULES else parent


def table() -> str:
    """Return the table of modules as it should stand in the page."""
    lines = ["| module | what it is |", "|---|---|"]
    for name, path in MODULES.items():
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines.append(f"| `{name}` | {docstring.splitlines()[0]} |")
    return "\n".join(lines)


def test_the_table_lists_every_module_with_its_docstring() -> None:
    shown = PAGE.partition(TABLE_START)[2].partition(TABLE_END)[0].strip()
    assert shown == table(), "copy the expected table into docs/architecture.md"


def test_every_module_that_the_page_names_exists() -> None:
    text = PAGE.partition("## Modules")[0]
    named = set(re.findall(r"`([a-z_]+/[a-z0-9_]+)`", text))
    assert len(named) > 20
    assert named - MODULES.keys() == set()


def test_every_package_has_a_place_in_the_order() -> None:
    assert {name.partition("/")[0] for name in MODULES} == set(LAYERS)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_is_below_it(name: str) -> None:
    own = name.partition("/")[0]
    for imported in imports(MODULES[name]):
        layer = imported.partition("/")[0]
        assert LAYERS.index(layer) <= LAYERS.index(own), f"{name} imports {imported}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    below = {name: set(imports(path)) & MODULES.keys() for name, path in MODULES.items()}
    while free := {name for name, needed in below.items() if not needed & below.keys()}:
        below = {name: needed for name, needed in below.items() if name not in free}
    assert sorted(below) == []
