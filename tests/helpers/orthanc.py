"""A real Orthanc for a test: an archive with C-STORE, REST and DICOMweb on loopback."""

import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import skip_or_fail
from tests.helpers.waiting import HANG_SECONDS, wait_until

AE_TITLE = "ORTHANC"
_PLUGINS = Path("/usr/share/orthanc/plugins")
_ATTEMPTS = 3
"""A port that was free when it was chosen can be taken when it is opened."""


@dataclass(frozen=True, slots=True)
class Orthanc:
    """A server that runs.

    Attributes
    ----------
    dicom_port, http_port : int
        On 127.0.0.1.
    log : Path
        What it says.
    """

    dicom_port: int
    http_port: int
    log: Path
    ae_title: str = AE_TITLE

    @property
    def url(self) -> str:
        """Root of the REST interface, without a slash at its end."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicomweb(self) -> str:
        """Root of the DICOMweb service, without a slash at its end."""
        return f"{self.url}/dicom-web"

    def request(
        self,
        path: str,
        body: bytes | None = None,
        *,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Ask the REST interface, such as for ``/system``; raises `HTTPError` as urllib does."""
        url, known = self.url + path, dict(headers or {})
        asked = urllib.request.Request(url, body, known, method=method)  # noqa: S310
        with urllib.request.urlopen(asked, timeout=HANG_SECONDS) as answer:  # noqa: S310
            content: bytes = answer.read()
        return content

    def get(self, path: str) -> Any:  # noqa: ANN401
        """Return the JSON at a path."""
        return json.loads(self.request(path))

    def post(self, path: str, body: object) -> Any:  # noqa: ANN401
        """Post JSON, or bytes as they are; return the JSON of the answer."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return json.loads(self.request(path, content))

    def delete(self, path: str) -> None:
        """Delete a resource."""
        self.request(path, method="DELETE")

    def instances(self) -> list[str]:
        """List its own identifiers of what is stored."""
        found: list[str] = self.get("/instances")
        return found

    def files(self) -> dict[str, bytes]:
        """Return every stored file, byte for byte, by its SOP Instance UID."""
        return {
            self.get(f"/instances/{name}")["MainDicomTags"]["SOPInstanceUID"]: self.file(name)
            for name in self.instances()
        }

    def file(self, name: str) -> bytes:
        """Return a stored file by Orthanc's identifier."""
        return self.request(f"/instances/{name}/file")

    def store(self, path: Path) -> str:
        """Upload a file by REST; return Orthanc's identifier."""
        answer = self.post("/instances", path.read_bytes())
        name: str = answer["ID"]
        return name

    def empty(self) -> None:
        """Delete all."""
        for name in self.get("/patients"):
            self.delete(f"/patients/{name}")


def free_port() -> int:
    """Choose a TCP port of loopback that nobody listens on now."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
    return port


def modality(ae_title: str, port: int, **permissions: bool) -> dict[str, object]:
    """Describe a DICOM peer on loopback for ``modalities``, with what is allowed to it."""
    return {"AET": ae_title, "Host": "127.0.0.1", "Port": port, **permissions}


@contextmanager
def running_orthanc(
    folder: Path,
    *,
    modalities: Mapping[str, Mapping[str, object]] | None = None,
    lua: Sequence[Path] = (),
    python: Path | None = None,
    **settings: object,
) -> Iterator[Orthanc]:
    """Run an Orthanc that stores what anybody sends, until the block ends.

    Parameters
    ----------
    folder : Path
        Where it keeps all; usually ``tmp_path / "orthanc"``.
    modalities : mapping, optional
        DICOM peers by their names in REST, from `modality`.
    lua : sequence of Path
        Lua scripts that it runs.
    python : Path, optional
        A script for its Python plugin.
    settings : dict
        Further keys of its configuration, or others than here, such as ``StableAge=1``.
    """
    program = shutil.which("Orthanc")
    plugins = [_PLUGINS / "libOrthancDicomWeb.so"]
    if python:
        plugins.append(_PLUGINS / "libOrthancPython.so")
    if program is None or not all(plugin.exists() for plugin in plugins):
        skip_or_fail("needs Orthanc (Debian: orthanc, orthanc-dicomweb, orthanc-python)")
    folder.mkdir(parents=True, exist_ok=True)
    known = {
        "Name": "cxrsr tests",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(plugin) for plugin in plugins],
        "LuaScripts": [str(script) for script in lua],
        "DicomAet": AE_TITLE,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomModalities": dict(modalities or {}),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StableAge": 1,
        # What was sent is what is kept: no other encoding, no other instance.
        "OverwriteInstances": True,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **({"PythonScript": str(python), "PythonVerbose": False} if python else {}),
    }
    log = folder / "orthanc.log"
    for attempt in range(_ATTEMPTS):
        ports = free_port(), free_port()
        configuration = folder / "orthanc.json"
        known |= {"DicomPort": ports[0], "HttpPort": ports[1], **settings}
        configuration.write_text(json.dumps(known), encoding="utf-8")
        server = Orthanc(*ports, log, str(known["DicomAet"]))
        with (
            log.open("wb") as said,
            subprocess.Popen([str(program), str(configuration)], stdout=said, stderr=said) as run,
        ):
            try:
                wait_until(lambda: run.poll() is not None or _answers(server), "Orthanc starts")  # noqa: B023
                if run.poll() is None:
                    yield server
                    return
            finally:
                # It would take three seconds to end by itself; its SQLite survives this.
                run.kill()
                run.wait(HANG_SECONDS)
        if attempt == _ATTEMPTS - 1:
            pytest.fail(f"Orthanc does not start:\n{log.read_text(errors='replace')[-2000:]}")


def _answers(server: Orthanc) -> bool:
    try:
        server.get("/system")
    except urllib.error.HTTPError as refused:
        return refused.code == 401
    except OSError:
        return False
    with socket.socket() as peer:
        return peer.connect_ex(("127.0.0.1", server.dicom_port)) == 0
