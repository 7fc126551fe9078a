"""The built wheel upscales in an empty folder, without the checkout."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import EXAMPLE, ROOT

pytestmark = pytest.mark.process


def test_the_wheel_contains_the_models(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*install, str(site), str(wheel)], check=True, capture_output=True)
    environment = os.environ | {"PYTHONPATH": str(site)}
    run = [sys.executable, "-m", "cxrsr_cli"]
    options: dict[str, Any] = {
        "cwd": empty,
        "env": environment,
        "capture_output": True,
        "text": True,
    }
    info = subprocess.run([*run, "info"], check=True, **options)
    assert "rir-s-x4" in info.stdout
    datasets = subprocess.run([*run, "datasets"], check=True, **options)
    assert "mimic-cxr" in datasets.stdout
    upscale = [*run, "upscale", "--scale", "4", str(EXAMPLE), "out.dcm"]
    done = subprocess.run(upscale, check=False, **options)
    assert done.returncode == 0, done.stderr
    assert (empty / "out.dcm").stat().st_size > 1024 * 1024
    where = "import cxrsr_cli; print(cxrsr_cli.__file__)"
    place = subprocess.run([sys.executable, "-c", where], check=True, **options)
    assert place.stdout.startswith(str(site))
    assert list((site / "cxrsr_cli" / "models").glob("*.safetensors"))
    compare = [*run, "compare", str(EXAMPLE), "out.dcm", "--no-verify", "-o", "page.html"]
    done = subprocess.run(compare, check=False, **options)
    assert done.returncode == 0, done.stderr
    assert not list((site / "cxrsr_cli" / "models").rglob("*.py"))
