"""Inputs are paired with outputs before any work is done."""

import shutil
import subprocess
from pathlib import Path

import pydicom
import pytest

from cxrsr_cli.batch.plan import plan_batch
from cxrsr_cli.errors import CxrsrError, NoInputError, NotDicomError, OutputError
from tests.conftest import skip_or_fail, small_chest

FILES = ("in/a.dcm", "in/sub/b.dcm", "in/.git/c.dcm", "in/.d.dcm", "in/sub/DICOMDIR",
         "other/a.dcm", "other/e.dcm", "single.dcm")  # fmt: skip


@pytest.fixture(autouse=True)
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make two folders and a file to plan with."""
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("there").mkdir()


@pytest.mark.parametrize(
    ("sources", "target", "pairs", "folder"),
    [
        (["single.dcm"], "out.dcm", {"single.dcm": "out.dcm"}, None),
        (["single.dcm"], "there", {"single.dcm": "there/single.dcm"}, "there"),
        (["single.dcm"], "new/", {"single.dcm": "new/single.dcm"}, "new"),
        (["in"], "out", {"in/a.dcm": "out/a.dcm", "in/sub/b.dcm": "out/sub/b.dcm"}, "out"),
        (["in"], ".", {"in/a.dcm": "a.dcm", "in/sub/b.dcm": "sub/b.dcm"}, "."),
        (["in/a.dcm", "single.dcm"], "out",
         {"in/a.dcm": "out/a.dcm", "single.dcm": "out/single.dcm"}, "out"),
        (["single.dcm", "none"], "out",
         {"single.dcm": "out/single.dcm", "none": "out/none"}, "out"),
        (["in", "other", "single.dcm"], "out",
         {"in/a.dcm": "out/in/a.dcm", "in/sub/b.dcm": "out/in/sub/b.dcm",
          "other/a.dcm": "out/other/a.dcm", "other/e.dcm": "out/other/e.dcm",
          "single.dcm": "out/single.dcm"}, "out"),
    ],
    ids=str,
)  # fmt: skip
def test_each_input_gets_its_output(
    sources: list[str], target: str, pairs: dict[str, str], folder: str
) -> None:
    made = plan_batch([Path(name) for name in sources], Path(target), into=target.endswith("/"))
    assert {str(job.source): str(job.target) for job in made.jobs} == pairs
    assert made.output_folder == (Path(folder) if folder else None)


@pytest.mark.parametrize("skipped", ["in/out", "in/quarantine"])
def test_folders_that_a_run_writes_are_not_inputs(skipped: str) -> None:
    Path(skipped).mkdir()
    Path(skipped, "earlier.dcm").touch()
    made = plan_batch([Path("in")], Path("in/out"), skipped=[Path("in/quarantine")])
    assert [str(job.source) for job in made.jobs] == ["in/a.dcm", "in/sub/b.dcm"]


@pytest.mark.parametrize(
    ("sources", "target", "error", "says"),
    [
        (["none"], "out", NoInputError, "no file or folder none"),
        (["there"], "out", NoInputError, "no file to upscale in there"),
        (["in"], "in", OutputError, "same folder"),
        (["in"], "single.dcm", OutputError, "is a file"),
        (["in", "other"], "single.dcm", OutputError, "is a file"),
    ],
    ids=str,
)
def test_inputs_and_outputs_that_do_not_fit_are_refused(
    sources: list[str], target: str, error: type[CxrsrError], says: str
) -> None:
    with pytest.raises(error, match=says):
        plan_batch([Path(name) for name in sources], Path(target))


@pytest.mark.parametrize(
    ("sources", "target", "refused"),
    [
        (["in/a.dcm", "other/a.dcm", "single.dcm"], "out",
         {"other/a.dcm": "in/a.dcm would be written to out/a.dcm, too"}),
        (["in/a.dcm", "other/e.dcm"], "in", {"in/a.dcm": "in/a.dcm leads to the input in/a.dcm"}),
        (["in", "single.dcm", "in/sub/DICOMDIR"], "out", {"in/sub/DICOMDIR": "damaged"}),
    ],
    ids=str,
)  # fmt: skip
def test_a_refused_file_does_not_stop_the_others(
    sources: list[str], target: str, refused: dict[str, str]
) -> None:
    made = plan_batch([Path(name) for name in sources], Path(target))
    assert {str(job.source) for job in made.jobs if job.error} == refused.keys()
    assert len(made.jobs) > len(refused)
    for job in made.jobs:
        assert refused.get(str(job.source), "") in str(job.error or "")


def test_a_file_that_is_given_twice_is_planned_once() -> None:
    made = plan_batch([Path("in/a.dcm"), Path("in/a.dcm"), Path("single.dcm")], Path("out"))
    assert [str(job.source) for job in made.jobs] == ["in/a.dcm", "single.dcm"]


def test_an_output_never_replaces_an_input() -> None:
    """A link, or one tree inside the other, does not lead there either."""
    Path("out").mkdir()
    Path("out/sub").symlink_to(Path("in/sub").resolve())
    refused = {
        str(job.source): str(job.error or "") for job in plan_batch([Path("in")], Path("out")).jobs
    }
    assert "leads to the input" in refused.pop("in/sub/b.dcm")
    assert set(refused.values()) == {""}


@pytest.fixture
def medium() -> Path:
    """Make a medium with DCMTK: two images and a DICOMDIR."""
    program = shutil.which("dcmmkdir")
    if program is None:
        skip_or_fail("needs dcmmkdir (Debian: dcmtk)")
    for index, name in enumerate(("IM000001", "IM000002")):
        path = Path("CD", "DICOM", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset = small_chest(index)
        dataset.InstanceNumber = index + 1
        dataset.StudyID = "1"
        dataset.save_as(path)
    done = subprocess.run(
        [str(program), "+I", "-Pgp", "+r", "+id", "CD", "+D", "CD/DICOMDIR"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Path("CD")


@pytest.mark.process
@pytest.mark.parametrize("small", [False, True], ids=["as written", "shown in small letters"])
def test_a_dicomdir_is_followed(medium: Path, small: bool) -> None:
    images = ["DICOM/IM000001", "DICOM/IM000002"]
    if small:
        images = [name.lower() for name in images]
        for path in (medium / "DICOM").iterdir():
            path.rename(path.with_name(path.name.lower()))
        (medium / "DICOM").rename(medium / "dicom")
    made = plan_batch([medium / "DICOMDIR"], Path("out"))
    assert [(str(job.source), str(job.target)) for job in made.jobs] == [
        (f"CD/{name}", f"out/{name}") for name in images
    ]
    assert made.output_folder == Path("out")
    several = plan_batch([medium / "DICOMDIR", Path("single.dcm")], Path("out"))
    assert str(several.jobs[0].target) == f"out/CD/{images[0]}"


@pytest.mark.process
def test_a_folder_with_a_dicomdir_lists_each_file_once(medium: Path) -> None:
    made = plan_batch([medium], Path("out"))
    assert [job.source.name for job in made.jobs] == ["IM000001", "IM000002"]


@pytest.mark.process
@pytest.mark.parametrize("component", ["..", "/etc", "a/../.."])
def test_a_dicomdir_cannot_name_files_outside_its_folder(medium: Path, component: str) -> None:
    directory = pydicom.dcmread(medium / "DICOMDIR")
    for record in directory.DirectoryRecordSequence:
        if "ReferencedFileID" in record:
            record["ReferencedFileID"] = pydicom.DataElement(
                record["ReferencedFileID"].tag, "CS", [component, "X"], validation_mode=0
            )
    directory.save_as(medium / "DICOMDIR")
    (job,) = plan_batch([medium / "DICOMDIR"], Path("out")).jobs
    assert isinstance(job.error, NotDicomError)
    assert "outside" in str(job.error)
