"""Files that users of other DICOM software reported, each with one property, and what is right."""

import shutil
import subprocess
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cxrsr_cli.batch.discover import find_inputs
from cxrsr_cli.batch.quarantine import Quarantine
from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.common.yaml_config import load_yaml_mapping
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import ConfigError, InputError, NotDicomError
from cxrsr_cli.options import Job
from cxrsr_cli.upscaler import Upscaler
from cxrsr_cli.verify.verify import verify

DONE = {
    "anat_item_empty_code": "no body part is stated",
    "collimator_na": "CollimatorLeftVerticalEdge is not numeric and was dropped",
    "contrib_equipment_lo": "ContributingEquipmentSequence has no items",
    "ds_comma_pixelspacing": "",
    "group2_in_dataset": "",
    "group_length": "",
    "min_dx_jpll": "a private element was dropped: it has compressed pixels",
    "no_preamble_with_meta": "",
    "nonascii": "",
    "ov_emb_pos12_smaller": "",
    "ov_emb_pos_inside": "an overlay was dropped: its bit",
    "ov_short_data": "a damaged overlay was dropped",
    "photometric_leading_space": "",
    "pixel_then_992_stray_bytes": "",
    "private_vr_guess_implicit": "",
    "ps_first_only": "PixelSpacing has a value that is not above zero",
    "ps_nan": "PixelSpacing is not numeric and was dropped",
    "ps_neg": "PixelSpacing is below zero and was dropped",
    "ps_onezero": "PixelSpacing has a value that is not above zero",
    "sd_multi": "",
    "trailing_zeros": "",
    "ts_says_explicit_is_implicit": "",
    "voilut_no_desc": "",
}
"""Files that are upscaled, each with its warning."""

REFUSED = {
    "highbit_vm2": "High Bit is not one number",
    "icon_len_short24": "damaged DICOM: it is cut off",
    "no_spp": "SamplesPerPixel: missing",
    "sq_trailing_2zeros": "damaged DICOM: it is cut off",
}
"""Files that are refused, each with its reason."""


@pytest.mark.parametrize("name", DONE)
def test_a_case_is_upscaled_and_verified(
    name: str, upscaler: Upscaler, shared: Path, tmp_path: Path
) -> None:
    source, target = shared / "cases" / f"{name}.dcm", tmp_path / "out.dcm"
    warnings = upscaler.upscale_file(source, target).warnings
    assert any(DONE[name] in warning for warning in warnings) or not DONE[name]
    report = verify(source, target)
    assert report.holds, [finding for finding in report.findings if finding.fails]


@pytest.mark.parametrize("name", REFUSED)
def test_a_case_is_refused_with_its_reason_and_quarantined(
    name: str, upscaler: Upscaler, shared: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.dcm"
    with pytest.raises(InputError, match=REFUSED[name]) as refusal:
        upscaler.read(Job(shared / "cases" / f"{name}.dcm", target))
    assert Quarantine.should_quarantine(refusal.value)
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "spacing"),
    [
        ("ds_comma_pixelspacing", "0.0715\\0.0715"),
        ("ps_first_only", "0.08\\"),
        ("ps_onezero", "0.1\\0.0"),
        ("ps_nan", None),
        ("ps_neg", None),
    ],
)
def test_every_distance_above_zero_is_divided(
    name: str, spacing: str | None, upscaler: Upscaler, shared: Path, tmp_path: Path
) -> None:
    upscaler.upscale_file(shared / "cases" / f"{name}.dcm", tmp_path / "out.dcm")
    element = pydicom.dcmread(tmp_path / "out.dcm").get_item("PixelSpacing")
    assert (element.value.decode().strip() if element else None) == spacing


@pytest.mark.parametrize(
    ("tag", "vr", "value", "warning"),
    [
        ("DerivationCodeSequence", "CS", "ABC", "DerivationCodeSequence has no items"),
        ("PixelSpacing", "LO", "1e400\\1e400", "PixelSpacing is not numeric and was dropped"),
        ("PixelSpacing", "LO", "1e-99999\\1", "PixelSpacing is not numeric and was dropped"),
        ((0x6000, 0x0010), "US", 65535, "OverlayRows is too large to be rescaled and was dropped"),
    ],
    ids=str,
)
def test_a_value_that_cannot_be_used_is_dropped(
    tag: str, vr: str, value: object, warning: str, chest: FileDataset, upscaler: Upscaler,
    tmp_path: Path,
) -> None:  # fmt: skip
    chest.add_new(tag, vr, value)
    if vr == "US":
        chest.add_new((0x6000, 0x0011), "US", 1)
        chest.add_new((0x6000, 0x3000), "OW", bytes(65536 // 8))
    chest.save_as(tmp_path / "in.dcm")
    later = upscaler.read(Job(tmp_path / "in.dcm", tmp_path / "out.dcm")).derivation_warnings
    assert any(warning in each for each in later)


def test_an_embedded_overlay_gets_the_size_of_the_image(
    upscaler: Upscaler, shared: Path, tmp_path: Path
) -> None:
    upscaler.upscale_file(shared / "cases" / "ov_emb_pos12_smaller.dcm", tmp_path / "out.dcm")
    written = pydicom.dcmread(tmp_path / "out.dcm")
    assert written.overlay_array(0x6000).shape == (written.Rows, written.Columns)


def tree(dataset: pydicom.Dataset) -> dict[str, object]:
    """Give every element of a sequence, by tag."""
    return {
        str(element.tag): [tree(item) for item in element.value]
        if element.VR == "SQ"
        else element.value
        for element in dataset
    }


@pytest.mark.parametrize("transfer_syntax", ["same", "explicit", "jpegls"])
@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
def test_sequences_of_a_mislabelled_file_come_out_as_they_went_in(
    implicit: bool, transfer_syntax: str, chest: FileDataset, tiny_model: Path, tmp_path: Path
) -> None:
    source, target = tmp_path / "in.dcm", tmp_path / "out.dcm"
    label = ExplicitVRLittleEndian if implicit else ImplicitVRLittleEndian
    mislabel(chest, source, label, implicit=implicit)
    upscaler = _upscaler(tiny_model, transfer_syntax)
    upscaler.upscale_file(source, target)
    with quiet_libraries():
        before, after = read_source(source).dataset, pydicom.dcmread(target)
        assert tree(before["AnatomicRegionSequence"].value[0]) == tree(
            after["AnatomicRegionSequence"].value[0]
        )
        assert (
            after.AnatomicRegionSequence[0].CodeValue == chest.AnatomicRegionSequence[0].CodeValue
        )
        assert len(after.AnatomicRegionSequence[0]) == len(chest.AnatomicRegionSequence[0])


def mislabel(dataset: FileDataset, path: Path, label: str, *, implicit: bool) -> None:
    """Write a data set in one VR encoding under the label of the other."""
    dataset.file_meta.TransferSyntaxUID = (
        ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    )
    dataset.save_as(path, implicit_vr=implicit, little_endian=True)
    old, new = (str(uid).encode() for uid in (dataset.file_meta.TransferSyntaxUID, label))
    old, new = (uid + b"\0" * (len(uid) % 2) for uid in (old, new))
    content = path.read_bytes()
    at = content.index(b"\x02\x00\x10\x00UI")
    length = int.from_bytes(content[140:144], "little") + len(new) - len(old)
    path.write_bytes(
        content[:140]
        + length.to_bytes(4, "little")
        + content[144 : at + 6]
        + len(new).to_bytes(2, "little")
        + new
        + content[at + 8 + len(old) :]
    )


def _upscaler(model: Path, transfer_syntax: str) -> Upscaler:
    from cxrsr_cli.dicom.transfer_syntax import OutputTransferSyntax
    from cxrsr_cli.networks.model_files import find_model
    from cxrsr_cli.options import UpscaleOptions

    options = UpscaleOptions(transfer_syntax=OutputTransferSyntax(transfer_syntax))
    return Upscaler.load(find_model(str(model), 2), options)


@pytest.mark.process
def test_dcmtk_reads_the_outputs_in_both_encodings(
    upscaler: Upscaler, shared: Path, tmp_path: Path
) -> None:
    program = shutil.which("dcmconv")
    if program is None:
        pytest.skip("needs dcmconv (Debian: dcmtk)")
    for name in ("min_dx_jpll", "ts_says_explicit_is_implicit", "voilut_no_desc"):
        upscaler.upscale_file(shared / "cases" / f"{name}.dcm", tmp_path / f"{name}.dcm")
        for encoding in ("+ti", "+te"):
            subprocess.run(
                [program, encoding, tmp_path / f"{name}.dcm", tmp_path / "converted"], check=True
            )


@pytest.mark.parametrize("nested", [False, True], ids=["top level", "in a sequence"])
def test_the_number_of_elements_is_bounded(
    nested: bool, chest: FileDataset, tmp_path: Path
) -> None:
    path = tmp_path / "in.dcm"
    chest.save_as(path)
    empty = b"".join(
        b"\x11\x00" + number.to_bytes(2, "little") + b"UN\0\0\0\0\0\0"
        for number in range(0x1000, 0xF000)
    )
    if nested:
        item = b"\xfe\xff\x00\xe0" + len(empty).to_bytes(4, "little") + empty
        empty = b"\x11\x00\x00\xf0SQ\0\0" + (2 * len(item)).to_bytes(4, "little") + 2 * item
    else:
        empty += empty.replace(b"\x11\x00", b"\x13\x00")
    content = path.read_bytes()
    at = content.rindex(b"\xe0\x7f\x10\x00OW")
    path.write_bytes(content[:at] + empty + content[at:])
    with pytest.raises(NotDicomError, match="more than 65536 elements"):
        read_source(path)


@pytest.mark.parametrize(
    "name", ["dot", "ext_dcm", "has_ext", "lower", "lowername", "mixed", "ok", "slash", "version1"]
)
def test_the_files_of_a_dicomdir_are_found_by_their_names(name: str, shared: Path) -> None:
    folder = shared / "cases" / "dicomdir" / name
    (dicomdir,) = [path for path in folder.iterdir() if path.is_file()]
    inputs = find_inputs(dicomdir)
    assert inputs
    assert all(each.path.is_file() for each in inputs)


def test_merge_keys_that_multiply_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 {k: 1}"]
    for level in range(1, 12):
        references = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} {{<<: [{references}]}}")
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="merge keys"):
        load_yaml_mapping(tmp_path / "bomb.yaml")


def test_a_merge_key_of_many_mappings_is_refused(tmp_path: Path) -> None:
    """The keys would be multiplied before they are counted."""
    keys, references = ", ".join(f"k{i}: 1" for i in range(99)), ", ".join(["*a"] * 101)
    (tmp_path / "bomb.yaml").write_text(f"a: &a {{{keys}}}\nb: {{<<: [{references}]}}\n")
    with pytest.raises(ConfigError, match="too many mappings"):
        load_yaml_mapping(tmp_path / "bomb.yaml")
