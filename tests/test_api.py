"""The Python API: every example of its page runs, and its paths give the same pixels."""

import logging
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

import cxrsr_cli
from cxrsr_cli.dicom.decode import decode
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import ModelError, OutputError, UnsupportedImageError
from cxrsr_cli.options import UpscaleOptions
from cxrsr_cli.upscaler import Upscaler
from tests.conftest import EXAMPLE, ROOT, small_chest

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Upscaler:
    """Load the tiny model through the API."""
    return cxrsr_cli.load_model(tiny_model, scale=2, device="cpu")


@pytest.mark.slow
def test_every_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLE, "chest.dcm")
    names: dict[str, Any] = {}
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) > 6
    for example in examples:
        exec(compile(example, "docs/python.md", "exec"), names)  # noqa: S102
    assert {path.name for path in tmp_path.iterdir()} == {
        "chest.dcm", "chest-x2.dcm", "from-memory.dcm",
    }  # fmt: skip
    assert cxrsr_cli.verify_file("chest.dcm", "from-memory.dcm").holds


@pytest.mark.parametrize("name", ["chest-256.dcm", "chest-1024.dcm"])
def test_an_object_in_memory_becomes_what_its_file_becomes(
    model: Upscaler, tmp_path: Path, name: str
) -> None:
    source = ROOT / "examples" / name
    dataset = pydicom.dcmread(source)
    before = dataset.to_json()
    model.upscale_file(source, tmp_path / "file.dcm")
    derived = model.upscale_dataset(dataset)
    derived.save_as(tmp_path / "memory.dcm")
    assert dataset.to_json() == before
    file = pydicom.dcmread(tmp_path / "file.dcm")
    assert derived.file_meta.TransferSyntaxUID == file.file_meta.TransferSyntaxUID
    times = {"InstanceCreationDate", "InstanceCreationTime", "ContributingEquipmentSequence"}
    times |= {"ContentDate", "ContentTime"}
    assert {element.keyword for element in file if derived.get(element.tag) != element} <= times
    assert derived.PixelData == file.PixelData
    assert cxrsr_cli.verify_file(source, tmp_path / "memory.dcm").holds


@pytest.mark.parametrize("syntax", ["explicit", "jpegls", "rle"])
def test_an_object_in_memory_can_be_compressed(
    tiny_model: Path, tmp_path: Path, syntax: str
) -> None:
    model = cxrsr_cli.load_model(tiny_model, scale=2, device="cpu", transfer_syntax=syntax)
    derived = model.upscale_dataset(small_chest(1))
    assert derived.file_meta.TransferSyntaxUID.is_compressed == (syntax != "explicit")
    derived.save_as(tmp_path / "out.dcm")
    plain = cxrsr_cli.load_model(tiny_model, scale=2, device="cpu").upscale_dataset(small_chest(1))
    plain.save_as(tmp_path / "plain.dcm")
    assert np.array_equal(
        decode(read_source(tmp_path / "out.dcm")), decode(read_source(tmp_path / "plain.dcm"))
    )


def test_an_object_that_was_made_in_memory_needs_no_file_meta_information(
    model: Upscaler,
) -> None:
    made = Dataset()
    made.update(small_chest(1))
    assert model.upscale_dataset(made).PixelData == model.upscale_dataset(small_chest(1)).PixelData


def test_an_object_that_is_not_accepted_is_refused(model: Upscaler) -> None:
    with pytest.raises(UnsupportedImageError, match="body part"):
        model.upscale_dataset(small_chest(1, BodyPartExamined="HIP"))


def test_warnings_of_an_object_are_logged(
    model: Upscaler, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = small_chest(1)
    for keyword in {"BodyPartExamined", "AnatomicRegionSequence"} & set(dataset.dir()):
        del dataset[keyword]
    with caplog.at_level(logging.WARNING, "cxrsr_cli"):
        model.upscale_dataset(dataset)
    assert "no body part is stated" in caplog.text


def test_an_array_becomes_what_its_file_becomes(model: Upscaler, tmp_path: Path) -> None:
    model.upscale_file(EXAMPLE, tmp_path / "out.dcm")
    expected = decode(read_source(tmp_path / "out.dcm"))[0]
    image = pydicom.dcmread(EXAMPLE).pixel_array
    made = model.upscale_array(image, minimum=0, maximum=4095)
    assert made.dtype == image.dtype
    assert np.array_equal(made, expected)
    floats = model.upscale_array(image.astype(np.float64) / 4095, minimum=0, maximum=1)
    assert floats.dtype == np.float32
    assert np.abs(floats * 4095 - expected).max() < 1
    assert 0 <= floats.min() <= floats.max() <= 1


def test_the_range_of_floats_does_not_change_the_image(model: Upscaler) -> None:
    image = pydicom.dcmread(EXAMPLE).pixel_array[:64, :64] / 4095
    one = model.upscale_array(image, minimum=0, maximum=1)
    other = model.upscale_array(image * 7e-3 - 3e-3, minimum=-3e-3, maximum=4e-3)
    assert np.allclose((other.astype(float) + 3e-3) / 7e-3, one, atol=1e-4)


def test_an_inverted_array_is_the_negative(model: Upscaler) -> None:
    image = pydicom.dcmread(EXAMPLE).pixel_array[:64, :64]
    made = model.upscale_array(image, minimum=0, maximum=4095).astype(int)
    negative = model.upscale_array(4095 - image, minimum=0, maximum=4095, inverted=True)
    assert np.abs(4095 - negative.astype(int) - made).max() <= 1


@pytest.mark.parametrize(
    ("array", "minimum", "maximum", "says"),
    [
        (np.zeros((2, 2, 2), np.uint8), 0, 255, "not an image"),
        (np.zeros((0, 2), np.uint8), 0, 255, "not an image"),
        (np.zeros((2, 2), complex), 0, 255, "not an image"),
        (np.full((2, 2), 256), 0, 255, "not the range"),
        (np.full((2, 2), np.nan), 0, 1, "not the range"),
        (np.zeros((2, 2)), 1, 0, "not the range"),
        (np.zeros((2, 2), int), 0, 1 << 16, "16 bits"),
    ],
    ids=str,
)
def test_an_array_that_is_no_grey_image_is_refused(
    model: Upscaler, array: np.ndarray, minimum: float, maximum: float, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        model.upscale_array(array, minimum=minimum, maximum=maximum)


def test_two_threads_on_one_model_give_the_pixels_of_one(model: Upscaler) -> None:
    images = [small_chest(seed) for seed in range(8)]
    alone = [model.upscale_dataset(image).PixelData for image in images]
    with ThreadPoolExecutor(2) as pool:
        together = [made.PixelData for made in pool.map(model.upscale_dataset, images)]
    assert together == alone


@pytest.mark.parametrize("method", ["file", "dataset", "array", "float"])
def test_progress_adds_up_and_its_exception_cancels(
    model: Upscaler, tmp_path: Path, method: str
) -> None:
    image = pydicom.dcmread(EXAMPLE).pixel_array
    output = tmp_path / "out.dcm"

    def run(advance: Any) -> object:  # noqa: ANN401
        if method == "file":
            return model.upscale_file(EXAMPLE, output, advance=advance)
        if method == "dataset":
            return model.upscale_dataset(pydicom.dcmread(EXAMPLE), advance=advance)
        values = image if method == "array" else image.astype(float)
        return model.upscale_array(values, minimum=0, maximum=4095, advance=advance)

    shares: list[float] = []
    run(shares.append)
    assert 0.9 < sum(shares) <= 1.0001
    output.unlink(missing_ok=True)

    class Cancelled(Exception):  # noqa: N818
        pass

    def cancel(_: float) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        run(cancel)
    assert list(tmp_path.iterdir()) == []


def test_an_output_is_replaced_only_if_that_is_chosen(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "out.dcm").write_bytes(b"precious")
    for overwrite in (False, True):
        model = cxrsr_cli.load_model(tiny_model, scale=2, device="cpu", overwrite=overwrite)
        if overwrite:
            model.upscale_file(str(EXAMPLE), str(tmp_path / "out.dcm"))
        else:
            with pytest.raises(OutputError, match="exists"):
                model.upscale_file(EXAMPLE, tmp_path / "out.dcm")
            assert (tmp_path / "out.dcm").read_bytes() == b"precious"
    assert pydicom.dcmread(tmp_path / "out.dcm").Rows == 512


def test_options_may_be_given_as_texts(tiny_model: Path) -> None:
    model = cxrsr_cli.load_model(
        tiny_model, scale=2, device="cpu", precision="bf16", allow=["modality"]
    )
    expected = UpscaleOptions(
        scale=2,
        model="tiny-x2",
        device="cpu",
        precision=model.options.precision,
        agreement=model.options.agreement,
        noise_reduction=0.0,
        allow=model.options.allow,
    )
    assert model.options == expected
    assert str(model.options.precision) == "bf16"
    assert set(model.options.allow) == {"modality"}


@pytest.mark.parametrize("options", [{"scael": 2}, {"scale": 3}, {"precision": "int8"}], ids=str)
def test_illegal_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"scael|scale|precision"):
        cxrsr_cli.load_model("rir-s", **options)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ModelError, match="no model 'nobody'"):
        cxrsr_cli.load_model("nobody")


def test_public_names_exist() -> None:
    assert all(getattr(cxrsr_cli, name) for name in cxrsr_cli.__all__)
    with pytest.raises(AttributeError, match="has no attribute nothing"):
        _ = cxrsr_cli.nothing


@pytest.mark.process
def test_torch_is_imported_when_it_is_first_needed() -> None:
    program = (
        "import cxrsr_cli, sys\n"
        "cxrsr_cli.UpscaleOptions(scale=2), cxrsr_cli.CxrsrError\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
