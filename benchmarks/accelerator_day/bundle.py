"""What travels with the checkout: wheels and a shard of training images, in one folder."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from benchmarks.accelerator_day.results import Results
from cxrsr_cli.common.files import atomic_write, sha256_file
from cxrsr_cli.errors import ConfigError, InputError

ROOT = Path(__file__).resolve().parent.parent.parent
STAGE = "setup"
SHARD_NAME = "data.tar"
_WHEELS, _CONTENTS = "wheels", "contents.json"
_TEST_PACKAGES = ("pytest", "hypothesis")
_PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")
_RESERVE_BYTES = 256 << 10
"""For the list of contents and the file system."""
_IMPORTS = """
import json, platform, torch
import cxrsr_cli.upscaler, cxrsr_cli.training.train, benchmarks.accelerator_day.speed, pytest
cuda = torch.cuda.is_available()
print(json.dumps({
    "python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda,
    "device": torch.cuda.get_device_name() if cuda else None,
    "device_bytes": torch.cuda.get_device_properties(0).total_memory if cuda else None,
}))
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the wheels are for.

    Attributes
    ----------
    python : str
        Version of Python, such as ``3.12``.
    architecture : str
        Such as ``x86_64``.
    present : frozenset of str
        Packages that the machine has, by canonical name.
    """

    python: str = "3.12"
    architecture: str = "x86_64"
    present: frozenset[str] = frozenset()


def canonical_name(name: str) -> str:
    """Return the name of a package as PyPI compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def site_folder(bundle: Path) -> Path:
    """Return the folder into which `setup` installs the wheels."""
    return bundle / "site"


def data_folder(bundle: Path) -> Path:
    """Return the folder into which `setup` unpacks the shard."""
    return bundle / "data"


def pack(
    bundle: Path,
    config: Path,
    overrides: Sequence[str],
    machine: Machine | None,
    *,
    max_bytes: int,
    side: int,
) -> dict[str, int]:
    """Fill the folder with wheels, and with as many crops as fit beside checkout and wheels.

    Parameters
    ----------
    bundle : Path
        The folder, inside or outside of the checkout. Git must ignore it.
    config : Path
        Training configuration, which names the images.
    overrides : sequence of str
        As of `load_train_config`.
    machine : Machine or None
        What to download wheels for; None for no wheels.
    max_bytes : int
        Limit of checkout, wheels and shard together.
    side : int
        Height and width of a crop in pixels.

    Returns
    -------
    dict of str to int
        Bytes of each, and the number of crops.

    Raises
    ------
    ConfigError
        If the folder has other files, pip fails, or nothing fits.
    """
    from benchmarks.accelerator_day.crops import choose_crops
    from cxrsr_cli.training.config import load_train_config

    checked = load_train_config(config, overrides)
    if stray := sorted(path.name for path in bundle.glob("*") if path.name not in _own_names()):
        raise ConfigError(f"{bundle} has other files: {', '.join(stray)}; use another folder")
    # What an earlier `setup` made in the folder would travel uncounted.
    for made in (site_folder(bundle), data_folder(bundle)):
        shutil.rmtree(made, ignore_errors=True)
    wheels = bundle / _WHEELS
    wheels.mkdir(parents=True, exist_ok=True)
    for old in wheels.iterdir():
        old.unlink()
    if machine:
        _download(wheels, machine)
    sizes = {"checkout": checkout_bytes(), "wheels": _size(wheels.iterdir())}
    left = max_bytes - sum(sizes.values()) - _RESERVE_BYTES
    if left <= 0:
        raise ConfigError(f"checkout and wheels take {sum(sizes.values())} bytes of {max_bytes}")
    # A tar file has a header and padding for each file.
    crops = choose_crops(checked.data, side, int(0.97 * left))
    with (
        atomic_write(bundle / SHARD_NAME) as temporary,
        tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for crop in crops:
            header = tarfile.TarInfo(crop.name)
            header.size = len(crop.content)
            archive.addfile(header, BytesIO(crop.content))
    sizes["shard"] = (bundle / SHARD_NAME).stat().st_size
    if sum(sizes.values()) > max_bytes:
        raise ConfigError(f"{bundle} and the checkout take more than {max_bytes} bytes")
    files = [bundle / SHARD_NAME, *sorted(wheels.iterdir())]
    contents = {path.relative_to(bundle).as_posix(): sha256_file(path) for path in files}
    (bundle / _CONTENTS).write_text(json.dumps(contents, indent=1), encoding="utf-8")
    return sizes | {"crops": len(crops)}


def _own_names() -> set[str]:
    site = site_folder(Path()).name
    return {SHARD_NAME, _WHEELS, _CONTENTS, site, f"{site}.part", data_folder(Path()).name}


def checkout_bytes() -> int:
    """Return the size of the files of the checkout that Git does not ignore."""
    listing = subprocess.run(
        [shutil.which("git") or "git", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return _size(ROOT / os.fsdecode(name) for name in listing.stdout.split(b"\0") if name)


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def _download(wheels: Path, machine: Machine) -> None:
    wanted = needed_packages(machine)
    platforms = [f"{name}_{machine.architecture}" for name in _PLATFORMS]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", machine.python]
    command += ["--implementation", "cp", "--dest", str(wheels)]
    command += [part for name in platforms for part in ("--platform", name)]
    done = subprocess.run([*command, *wanted], check=False, capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f"pip could not download the wheels: {done.stderr.strip()[-500:]}")


def needed_packages(machine: Machine) -> list[str]:
    """List what the checkout needs and the machine lacks, in the versions of this environment."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    waiting = [*project["project"]["dependencies"], *_TEST_PACKAGES]
    environment = {"python_version": machine.python, "python_full_version": f"{machine.python}.0"}
    environment |= {"platform_machine": machine.architecture, "extra": ""}
    seen, wanted = {"torch"}, list[str]()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonical_name(requirement.name)
        if name in seen or (requirement.marker and not requirement.marker.evaluate(environment)):
            continue
        seen.add(name)
        if name in machine.present:
            continue
        distribution = importlib.metadata.distribution(name)
        wanted.append(f"{name}=={distribution.version}")
        waiting += distribution.requires or []
    return sorted(wanted)


def setup(results: Results, bundle: Path, device: str) -> bool:
    """Install the wheels that are missing, unpack the shard, and import everything once.

    Parameters
    ----------
    results : Results
        Gets a record for each step.
    bundle : Path
        As `pack` filled it.
    device : str
        ``cpu``, or one that needs CUDA.

    Returns
    -------
    bool
        Whether the other stages can run.

    Raises
    ------
    InputError
        If a file is missing or damaged.
    """
    started = time.monotonic()

    def add(step: str, **values: object) -> None:
        results.add(STAGE, step=step, seconds=round(time.monotonic() - started, 3), **values)

    wheels = _check_contents(bundle)
    add("contents")
    site = site_folder(bundle)
    missing = [wheel for wheel in wheels if not _is_installed(wheel, site)]
    if missing:
        _install(missing, site)
    add("wheels", installed=[wheel.name for wheel in missing], present=len(wheels) - len(missing))
    shutil.rmtree(data_folder(bundle), ignore_errors=True)  # of an earlier shard
    with tarfile.open(bundle / SHARD_NAME, "r:") as archive:
        archive.extractall(data_folder(bundle), filter="data")
        add("shard", files=len(archive.getnames()))
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTS],
        check=False,
        capture_output=True,
        text=True,
        env=child_environment(bundle),
    )
    ok, found = done.returncode == 0, {"error": done.stderr[-2000:]}
    if ok:
        # A library may have printed something before.
        found = json.loads(done.stdout.splitlines()[-1])
        ok = device == "cpu" or found["device"] is not None
    add("imports", **found, ok=ok)
    return ok


def child_environment(bundle: Path) -> dict[str, str]:
    """Return the environment of a process that uses the checkout and the installed wheels."""
    path = [str(ROOT), str(site_folder(bundle)), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "PYTHONUNBUFFERED": "1",
    }


def _check_contents(bundle: Path) -> list[Path]:
    try:
        contents = json.loads((bundle / _CONTENTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{bundle} was not filled by `pack`, or not completely") from error
    wrong = [
        name
        for name, digest in contents.items()
        if not (bundle / name).is_file() or sha256_file(bundle / name) != digest
    ]
    if wrong:
        raise InputError(f"{bundle}: missing or damaged: {', '.join(wrong)}; copy it again")
    return [bundle / name for name in contents if name.endswith(".whl")]


def _is_installed(wheel: Path, site: Path) -> bool:
    try:
        found = importlib.metadata.distribution(canonical_name(wheel.name.partition("-")[0]))
    except importlib.metadata.PackageNotFoundError:
        return False
    return not Path(str(found.locate_file(""))).resolve().is_relative_to(site.resolve())


def _install(wheels: list[Path], site: Path) -> None:
    # Renamed when it is complete, so that a kill leaves no half package.
    partial = site.with_name(f"{site.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--no-compile", "--no-cache-dir", "--disable-pip-version-check"]
    command += ["--target", str(partial), *map(str, wheels)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f"pip could not install the wheels: {done.stderr.strip()[-500:]}")
    shutil.rmtree(site, ignore_errors=True)
    partial.rename(site)
