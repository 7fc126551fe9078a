"""Options that decide the output, and reproducible outputs."""

import logging
import threading
import warnings
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from cxrsr_cli.batch.runner import BatchRunner, LocalExecutor
from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.derive.private_elements import drop_private, drop_untrue_private
from cxrsr_cli.errors import ExitCode
from cxrsr_cli.networks.model_files import find_model
from cxrsr_cli.options import Job, UpscaleOptions
from cxrsr_cli.upscaler import Upscaler
from cxrsr_cli.verify.verify import verify
from tests.conftest import EXAMPLE, Command, small_chest
from tests.helpers.warm_command import run_warm

# Series Description


@pytest.mark.parametrize(
    ("text", "legal"),
    [
        ("Chest SR", True),
        ("x" * 45, True),
        ("x" * 46, False),
        ("", False),
        (" padded", False),
        ("two\\values", False),
        ("Thorax übergroß", False),
        ("a\nline", False),
    ],
)
def test_a_series_description_has_1_to_45_ascii_characters(text: str, legal: bool) -> None:
    if legal:
        assert UpscaleOptions(series_description=text).series_description == text
    else:
        with pytest.raises(ValueError, match="1 to 45 ASCII characters"):
            UpscaleOptions(series_description=text)


def test_the_series_description_is_an_option_and_changes_the_uids(
    cxrsr: Command, tiny_model: Path, tmp_path: Path
) -> None:
    small_chest().save_as(tmp_path / "in.dcm")
    options = ("upscale", "-s", 2, "-m", tiny_model, tmp_path / "in.dcm")
    for name, more in (("a", []), ("b", ["--series-description", "Our name"])):
        assert cxrsr(*options, tmp_path / f"{name}.dcm", *more).returncode == ExitCode.OK
    usual, wanted = (pydicom.dcmread(tmp_path / f"{name}.dcm") for name in "ab")
    assert wanted.SeriesDescription == "Our name, not for diagnosis"
    assert usual.SeriesDescription.endswith("AI super-resolution x2, not for diagnosis")
    # Objects that differ must have different UIDs.
    assert wanted.SOPInstanceUID != usual.SOPInstanceUID
    assert wanted.SeriesInstanceUID != usual.SeriesInstanceUID
    done = cxrsr(*options, tmp_path / "c.dcm", "--series-description", "x" * 80)
    assert done.returncode == ExitCode.USAGE


# Private elements


def private(dataset: Dataset, size: int = 4) -> Dataset:
    block = dataset.private_block(0x0019, "PRIVATE CREATOR", create=True)
    block.add_new(0x10, "OB", b"\1" * size)
    return dataset


def test_private_elements_are_dropped_at_every_depth(tmp_path: Path) -> None:
    """All other elements keep their bytes, valid or not."""
    dataset = private(small_chest())
    dataset.ViewCodeSequence = Sequence([private(Dataset())])
    dataset.ViewCodeSequence[0].CodeMeaning = "MEANING1"
    dataset.PatientID = "EXAMPLE1"
    dataset.save_as(tmp_path / "in.dcm")
    raw = (tmp_path / "in.dcm").read_bytes()
    illegal = b"\xff\xfe\x80 \xf0\xf1 x"
    (tmp_path / "in.dcm").write_bytes(
        raw.replace(b"MEANING1", illegal).replace(b"EXAMPLE1", illegal)
    )
    with quiet_libraries():
        read = pydicom.dcmread(tmp_path / "in.dcm")
        drop_private(read)
        read.save_as(tmp_path / "out.dcm")
    written = (tmp_path / "out.dcm").read_bytes()
    assert written.count(illegal) == raw.count(b"MEANING1") + raw.count(b"EXAMPLE1")
    assert b"PRIVATE CREATOR" not in written


@pytest.mark.parametrize(("size", "kept"), [(24 * 20 - 2, True), (24 * 20, False)])
def test_private_elements_as_large_as_the_image_are_dropped_with_a_warning(
    size: int, kept: bool
) -> None:
    dataset = private(small_chest(), size)
    said = drop_untrue_private(dataset, dataset)
    assert ((0x0019, 0x1010) in dataset) == kept
    assert said == ([] if kept else ["1 private elements as large as the image were dropped"])


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("keep_private", [True, False])
def test_an_option_keeps_or_drops_private_elements(
    tiny_model: Path, tmp_path: Path, keep_private: bool, implicit: bool
) -> None:
    dataset = private(small_chest())
    dataset.ViewCodeSequence = Sequence([private(Dataset())])
    if implicit:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    source, target = tmp_path / "in.dcm", tmp_path / "out.dcm"
    dataset.save_as(source, implicit_vr=implicit, little_endian=True)
    model = find_model(str(tiny_model), 2)
    upscaler = Upscaler.load(model, UpscaleOptions(keep_private=keep_private))
    (result,) = BatchRunner(LocalExecutor(upscaler)).run([Job(source, target)])
    assert result.error is None
    written = pydicom.dcmread(target)
    assert any(element.tag.is_private for element in written) == keep_private
    assert any(element.tag.is_private for element in written.ViewCodeSequence[0]) == keep_private
    assert verify(source, target).holds


# The same bytes


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--timestamp", "2023-11-14T22:13:20+00:00"], {"TZ": "Asia/Tokyo"}),
        ([], {"SOURCE_DATE_EPOCH": "1700000000"}),
    ],
    ids=str,
)
def test_a_fixed_time_gives_the_same_bytes(
    tiny_model: Path, tmp_path: Path, arguments: list[str], environment: dict[str, str]
) -> None:
    """The time is written in the time zone of the object."""
    small_chest(TimezoneOffsetFromUTC="+0000").save_as(tmp_path / "in.dcm")
    written = []
    for name, workers in (("a", "0"), ("b", "2")):
        command = ["upscale", "-s", "2", "-m", str(tiny_model), "--io-workers", workers]
        command += [*arguments, "in.dcm", f"{name}.dcm"]
        run_warm(command, folder=tmp_path, environment=environment).check_returncode()
        written.append((tmp_path / f"{name}.dcm").read_bytes())
    assert written[0] == written[1]
    read = pydicom.dcmread(tmp_path / "a.dcm")
    assert read.InstanceCreationDate + read.InstanceCreationTime == "20231114221320"


@pytest.mark.parametrize("text", ["yesterday", "2023-11-14T22:13:20", "1e9", "9" * 30])
def test_a_time_without_a_zone_is_refused(cxrsr: Command, tmp_path: Path, text: str) -> None:
    done = cxrsr("upscale", "--timestamp", text, EXAMPLE, tmp_path / "o.dcm")
    assert done.returncode == ExitCode.USAGE
    assert "with its zone" in done.stderr.replace("\n", " ")
    assert not (tmp_path / "o.dcm").exists()


@pytest.mark.process
@pytest.mark.parametrize(
    ("epoch", "code"),
    [("", ExitCode.OK), ("2023-11-14T22:13:20+00:00", ExitCode.USAGE), ("x", ExitCode.USAGE)],
)
def test_an_invalid_source_date_epoch_is_refused(
    tiny_model: Path, tmp_path: Path, epoch: str, code: ExitCode
) -> None:
    """Libraries that we use read the variable, too, and would fail on it."""
    small_chest().save_as(tmp_path / "in.dcm")
    command = ["upscale", "-s", "2", "-m", str(tiny_model), "in.dcm", "out.dcm"]
    done = run_warm(command, folder=tmp_path, environment={"SOURCE_DATE_EPOCH": epoch})
    assert done.returncode == code, done.stderr
    assert ("seconds since 1970" in done.stderr) == (code is ExitCode.USAGE)


# Several inputs, and options that exclude each other


def test_several_inputs_are_put_into_the_output_folder(
    cxrsr: Command, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    small_chest(1).save_as(tmp_path / "folder" / "one.dcm")
    small_chest(2).save_as(tmp_path / "two.dcm")
    names = [tmp_path / name for name in ("folder", "two.dcm", "none.dcm", "out")]
    done = cxrsr("upscale", "-s", 2, "-m", tiny_model, *names)
    assert done.returncode == ExitCode.SOME_FAILED
    assert "2 upscaled, 1 failed" in done.stdout
    assert "none.dcm: cannot read the file (No such file or directory)" in done.stderr
    written = {str(path.relative_to(tmp_path)) for path in (tmp_path / "out").rglob("*.dcm")}
    assert written == {"out/folder/one.dcm", "out/two.dcm"}


@pytest.mark.parametrize(
    "options", [("-v", "-q"), ("--ledger", "x", "--no-ledger"), ("--io-workers", "-1")], ids=str
)
def test_options_that_exclude_each_other_are_refused(
    cxrsr: Command, tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = cxrsr("upscale", *options, EXAMPLE, tmp_path / "out.dcm")
    assert done.returncode == ExitCode.USAGE
    assert list(tmp_path.iterdir()) == []


# Quiet libraries


def test_libraries_are_quiet_until_the_last_thread_has_left() -> None:
    """The thread that leaves first must not restore the log levels."""
    logger = logging.getLogger("pydicom")
    before = (logger.level, list(warnings.filters))
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with quiet_libraries():
            inside.set()
            assert leave.wait(10)

    thread = threading.Thread(target=stay)
    with quiet_libraries():
        thread.start()
        assert inside.wait(10)
    assert not logger.isEnabledFor(logging.CRITICAL)
    with warnings.catch_warnings(record=True) as said:
        warnings.warn("Example^Chest", stacklevel=1)
    assert said == []
    leave.set()
    thread.join()
    assert (logger.level, list(warnings.filters)) == before
