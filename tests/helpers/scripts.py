"""Run the scripts in examples/ as an installation would, with a model that takes no time."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"


def install_command(folder: Path) -> Path:
    """Write a ``cxrsr`` that is this checkout's, whatever environment it is called from."""
    folder.mkdir(parents=True, exist_ok=True)
    command = folder / "cxrsr"
    words = shlex.join(["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "cxrsr_cli"])
    command.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    return command


def pretend(path: Path, script: str) -> dict[str, str]:
    """Write a command that does something else; return the environment that names it."""
    path.write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return {"CXRSR_COMMAND": str(path)}


def environment(tmp_path: Path, model: Path, **more: str) -> dict[str, str]:
    """Return what cron gives, and no more: a command, options, and one thread."""
    return {
        "PATH": f"{install_command(tmp_path / 'bin dir').parent}:/usr/bin:/bin",
        "CXRSR_OPTIONS": f"--scale 2 --model {shlex.quote(str(model))}",
        "OMP_NUM_THREADS": "1",
        **more,
    }


def run(
    *words: object, env: Mapping[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end."""
    return subprocess.run(
        [str(word) for word in words],
        check=False,
        capture_output=True,
        text=True,
        env=env,
        cwd=cwd or os.sep,
        timeout=300,
    )
