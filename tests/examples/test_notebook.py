"""The notebook runs from its first cell to its last."""

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT

NOTEBOOK = ROOT / "examples" / "python.ipynb"


def test_the_notebook_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its cells are executed one after the other, as Jupyter does, without Jupyter."""
    monkeypatch.chdir(NOTEBOOK.parent)
    monkeypatch.setattr("tempfile.mkdtemp", lambda: str(tmp_path))
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "pixels and paths of a machine do not belong in it"
            exec(compile("".join(cell["source"]), NOTEBOOK.name, "exec"), names)  # noqa: S102 - a cell of our own notebook
    printed = capsys.readouterr().out
    assert "cancelled after" in printed
    assert "body part 'HIP' is not the chest" in printed
