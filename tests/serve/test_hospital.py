"""From a real archive through the node and back, by C-STORE and by DICOMweb."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.dicom.transfer_syntax import OutputTransferSyntax, resolve_transfer_syntax
from cxrsr_cli.errors import ExitCode
from cxrsr_cli.verify.verify import verify
from tests.helpers.encodings import LOSSLESS, LOSSY, PICTURES
from tests.helpers.nodes import Node, configure, running
from tests.helpers.orthanc import Orthanc, free_port, modality, running_orthanc

pytestmark = [pytest.mark.peer, pytest.mark.process]

WHOLE = ("1.3.6*.dcm", "966_fixed.dcm", "Fake_MONOHR1.dcm", "RG1_J2KR.dcm")
"""Real chests as they are, 1 to 4 megapixels."""


@dataclass(frozen=True)
class Hospital:
    """An archive sends to a node, which sends to both this archive and a second one.

    Attributes
    ----------
    archive, web : Orthanc
        Get outputs by C-STORE and by STOW-RS.
    share : Path
        Gets them as files.
    """

    archive: Orthanc
    web: Orthanc
    node: Node
    share: Path

    def send(self, names: list[str]) -> None:
        """Have the archive send instances to the node."""
        self.archive.post("/modalities/cxrsr/store", {"Resources": names, "Synchronous": True})


@pytest.fixture
def hospital(tmp_path: Path, tiny_model: Path) -> Iterator[Hospital]:
    port, share = free_port(), tmp_path / "share"
    share.mkdir()
    peers = {"cxrsr": modality("CXRSR", port)}
    with (
        running_orthanc(tmp_path / "archive", modalities=peers) as archive,
        running_orthanc(tmp_path / "web") as web,
    ):
        destinations: dict[str, Any] = {
            "archive": {
                "kind": "store",
                "host": "127.0.0.1",
                "port": archive.dicom_port,
                "called_ae": archive.ae_title,
            },
            "web": {"kind": "stow", "url": web.dicomweb},
            "share": {"kind": "folder", "path": str(share)},
        }
        scp = {"port": port, "peers": [{"ae_title": archive.ae_title, "address": "127.0.0.1"}]}
        with running(configure(tmp_path, tiny_model, destinations, scp=scp)) as node:
            node.wait("listening")
            yield Hospital(archive, web, node, share)


def elements(dataset: Dataset) -> dict[int, object]:
    """Return all elements as encoded, except for the form of their lengths."""
    return {int(element.tag): element for element in dataset}


def found(server: Orthanc, source: Dataset) -> list[dict[str, Any]]:
    """Query the instances of a study other than the source by QIDO-RS (PS3.18 10.6)."""
    study = source.StudyInstanceUID
    instances: list[dict[str, Any]] = server.get(
        f"/dicom-web/studies/{study}/instances?includefield=00080008"
    )
    return [each for each in instances if each["00080018"]["Value"] != [source.SOPInstanceUID]]


def check(hospital: Hospital, sources: dict[str, Path]) -> None:
    """Check that every output is in both archives and in the share, under its study."""
    made = {
        str(dataset.SourceImageSequence[0].ReferencedSOPInstanceUID): (path, dataset)
        for path in hospital.share.glob("[!.]*")
        for dataset in [pydicom.dcmread(path)]
    }
    kept = {"archive": hospital.archive.files(), "web": hospital.web.files()}
    assert len(made) == len(sources)
    for name, path in sources.items():
        with quiet_libraries():
            source = pydicom.dcmread(path)
        file, derived = made[source.SOPInstanceUID]
        assert verify(path, file).holds, name
        assert derived.file_meta.TransferSyntaxUID == resolve_transfer_syntax(
            OutputTransferSyntax.SAME, read_source(path).transfer_syntax
        )
        for archive, files in kept.items():
            with quiet_libraries():
                back = pydicom.dcmread(pydicom.filebase.DicomBytesIO(files[derived.SOPInstanceUID]))
                assert elements(back) == elements(derived), (name, archive)
        for server in (hospital.archive, hospital.web):
            answers = found(server, source)
            assert derived.SOPInstanceUID in [each["00080018"]["Value"][0] for each in answers]
            assert all("DERIVED" in each["00080008"]["Value"] for each in answers), name


def test_instances_of_every_transfer_syntax_come_back_upscaled(
    hospital: Hospital, tmp_path: Path, shared: Path
) -> None:
    """An archive sends by C-STORE and gets the output by C-STORE; another one by STOW-RS."""
    encoders = {syntax: (encode, "a DX of 12 bits") for syntax, encode in LOSSLESS.items()}
    encoders |= {syntax: (lossy.encode, lossy.pictures[-1]) for syntax, lossy in LOSSY.items()}
    sources, names = {}, []
    for index, (syntax, (encode, picture)) in enumerate(encoders.items()):
        if UID(syntax).keyword.startswith("HTJ2K"):  # not known to this version of Orthanc
            continue
        dataset = PICTURES[picture].dataset(lambda: shared)
        uid = UID(f"2.25.{4000 + index}")
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        path = tmp_path / f"{UID(syntax).keyword}.dcm"
        with quiet_libraries():
            dataset.save_as(tmp_path / "plain", implicit_vr=False, little_endian=True)
            encode(tmp_path / "plain", path)
        sources[UID(syntax).keyword] = path
        names.append(hospital.archive.store(path))
    hospital.send(names)
    hospital.node.wait("sent", 3 * len(sources))
    check(hospital, sources)
    assert hospital.node.events("dead") == []
    assert hospital.node.stop() == ExitCode.OK


def test_real_radiographs_come_back_upscaled(hospital: Hospital, shared: Path) -> None:
    paths = [path for name in WHOLE for path in (shared / "dicom" / "chest").glob(name)]
    names = [hospital.archive.store(path) for path in paths]
    hospital.send(names)
    hospital.node.wait("sent", 3 * len(paths))
    check(hospital, {path.name: path for path in paths})
    # The archive sends all of it, outputs too: nothing goes round.
    hospital.send(hospital.archive.instances())
    assert len(hospital.node.wait("ignored", len(paths))) == len(paths)
    assert len(hospital.node.wait("duplicate", len(paths))) == len(paths)
    assert len(hospital.archive.instances()) == 2 * len(paths)
