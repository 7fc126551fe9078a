"""A folder as a destination: files are copied completely, and none is replaced."""

import errno
import os
from pathlib import Path
from unittest.mock import patch

import pytest
from pydantic import TypeAdapter, ValidationError

from cxrsr_cli.connections.destination import Destination, SendOutcome
from cxrsr_cli.connections.tls import TlsConfig
from cxrsr_cli.errors import UsageError
from cxrsr_cli.send.folder import Folder
from cxrsr_cli.send.store import CStoreDestination
from tests.conftest import small_chest


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("a.dcm", "b.dcm")]
    for path in paths:
        path.write_text(path.name)
    return paths


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    folder = tmp_path / "outbox"
    folder.mkdir()
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_copying_stops_after_the_current_file_if_asked(outbox: Path, files: list[Path]) -> None:
    assert [sent.path for sent in Folder(path=outbox).send(files, lambda: True)] == files[:1]


def test_files_are_copied_under_their_names(files: list[Path], outbox: Path) -> None:
    results = list(Folder(path=outbox).send(files))
    assert [(sent.path, sent.outcome) for sent in results] == [
        (path, SendOutcome.STORED) for path in files
    ]
    assert contents(outbox) == {"a.dcm": "a.dcm", "b.dcm": "b.dcm"}


def test_an_equal_file_counts_as_stored_and_a_different_one_is_not_replaced(
    files: list[Path], outbox: Path
) -> None:
    (outbox / "a.dcm").write_text("a.dcm")
    (outbox / "b.dcm").write_text("other")
    results = list(Folder(path=outbox).send(files))
    assert [sent.outcome for sent in results] == [SendOutcome.STORED, SendOutcome.REFUSED]
    assert contents(outbox) == {"a.dcm": "a.dcm", "b.dcm": "other"}


def test_the_same_instance_of_another_time_counts_as_stored_and_is_kept(
    outbox: Path, tmp_path: Path
) -> None:
    """A node that forgot what it sent, or whose clock jumped, makes an object again."""
    for folder, time in ((tmp_path, "120000"), (outbox, "110000")):
        small_chest(InstanceCreationTime=time).save_as(folder / "c.dcm")
    before = (outbox / "c.dcm").read_bytes()
    (sent,) = Folder(path=outbox).send([tmp_path / "c.dcm"])
    assert sent.outcome is SendOutcome.WARNED
    assert (outbox / "c.dcm").read_bytes() == before
    small_chest(1).save_as(outbox / "c.dcm")
    (sent,) = Folder(path=outbox).send([tmp_path / "c.dcm"])
    assert sent.outcome is SendOutcome.REFUSED


def test_a_share_that_is_not_mounted_is_a_failure_that_may_pass(
    files: list[Path], tmp_path: Path
) -> None:
    results = list(Folder(path=tmp_path / "missing").send(files))
    assert {(sent.outcome, sent.decided_by_peer) for sent in results} == {
        (SendOutcome.FAILED, True)
    }
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    ("plain", "destination"),
    [
        ({"path": "outbox"}, Folder(path=Path("outbox"))),
        (
            {
                "host": "pacs",
                "port": 104,
                "called_ae": "PACS",
                "tls": {"key": "k", "certificate": "c"},
            },
            CStoreDestination(
                host="pacs",
                port=104,
                called_ae="PACS",
                tls=TlsConfig(certificate=Path("c"), key=Path("k")),
            ),
        ),
    ],
    ids=["folder", "application entity"],
)
def test_a_destination_is_read_from_a_configuration(
    plain: dict[str, object], destination: Destination
) -> None:
    adapter = TypeAdapter(type(destination))
    assert adapter.validate_python(plain) == destination
    with pytest.raises(ValidationError, match="unexpected"):
        adapter.validate_python({**plain, "unknown": 1})


def test_a_file_as_destination_is_a_usage_error(files: list[Path]) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        list(Folder(path=files[0]).send(files))


def test_a_share_whose_server_is_down_is_not_a_usage_error(files: list[Path], outbox: Path) -> None:
    """Its status gives an error other than absence; it may be up again when files are copied."""
    real = Path.stat

    def stat(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path == outbox:
            raise OSError(errno.ESTALE, "Stale file handle")
        return real(path, follow_symlinks=follow_symlinks)

    with patch.object(Path, "stat", stat):
        assert Folder(path=outbox).check() == f"cannot find {outbox}: Stale file handle"
        results = list(Folder(path=outbox).send(files))
    assert {sent.outcome for sent in results} == {SendOutcome.STORED}


def test_check_reports_a_folder_that_is_not_writable(files: list[Path], outbox: Path) -> None:
    assert Folder(path=outbox).check() == ""
    with patch.object(os, "access", return_value=False):
        assert Folder(path=outbox).check() == f"{outbox} is not writable"
    with pytest.raises(UsageError, match="is not a folder"):
        Folder(path=files[0]).check()


def test_an_unreadable_file_does_not_stop_the_others(files: list[Path], outbox: Path) -> None:
    pipe = outbox.parent / "pipe"
    os.mkfifo(pipe)
    results = list(Folder(path=outbox).send([pipe, outbox.parent / "missing", *files]))
    assert [(sent.outcome, sent.decided_by_peer) for sent in results] == [
        (SendOutcome.FAILED, False),
        (SendOutcome.FAILED, False),
        (SendOutcome.STORED, True),
        (SendOutcome.STORED, True),
    ]
    assert set(contents(outbox)) == {"a.dcm", "b.dcm"}
