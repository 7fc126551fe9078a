"""Pictures are read and written bit for bit, and what would lose bits is refused."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cxrsr_cli.errors import InputError, OutputError, UnsupportedImageError
from cxrsr_cli.images.picture_files import (
    Picture,
    check_formats,
    check_picture,
    read_picture,
    suffix_of_content,
    write_picture,
)
from tests.conftest import EXAMPLE

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (9, 8)).astype(np.uint8)


def values(bits: int) -> NDArray[np.integer]:
    """Return all kinds of values of so many bits, with both ends."""
    made = RNG.integers(0, 1 << bits, (17, 23))
    made[0, :2] = 0, (1 << bits) - 1
    return made.astype(np.uint8 if bits == 8 else np.uint16)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF", ".npy"])
def test_what_is_written_is_read_bit_for_bit(tmp_path: Path, suffix: str, bits: int) -> None:
    path, made = tmp_path / f"a{suffix}", values(bits)
    write_picture(Picture(made, bits, (0.143, 0.2)), path, suffix)
    read = read_picture(path, bits)
    assert read.values.dtype == made.dtype
    assert np.array_equal(read.values, made)
    assert (read.minimum, read.maximum) == (0, (1 << bits) - 1)
    if suffix != ".npy":
        assert read.spacing == pytest.approx((0.143, 0.2), rel=1e-4)
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image), made), "any reader sees the same"


def test_signed_values_are_kept_by_npy(tmp_path: Path) -> None:
    made = values(16).view(np.int16)
    write_picture(Picture(made, 16), tmp_path / "a.npy", ".npy")
    read = read_picture(tmp_path / "a.npy")
    assert np.array_equal(read.values, made)
    assert (read.minimum, read.maximum) == (-32768, 32767)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("a.png", [GREY] * 3),
        ("b.png", [GREY] * 3 + [np.full_like(GREY, 255)]),
        ("c.tif", [GREY] * 3),
    ],
)
def test_colour_with_equal_channels_is_grey(
    tmp_path: Path, name: str, channels: list[NDArray[np.uint8]]
) -> None:
    Image.fromarray(np.dstack(channels)).save(tmp_path / name)
    assert np.array_equal(read_picture(tmp_path / name).values, GREY)


def test_a_palette_of_greys_and_a_jpeg_are_read(tmp_path: Path) -> None:
    Image.fromarray(GREY).convert("P").save(tmp_path / "a.png")
    assert np.array_equal(read_picture(tmp_path / "a.png").values, GREY)
    Image.fromarray(GREY).save(tmp_path / "a.jpg", quality=95, dpi=(254, 127))
    jpeg = read_picture(tmp_path / "a.jpg")
    assert np.abs(jpeg.values.astype(int) - GREY).max() < 20
    assert jpeg.spacing == pytest.approx((0.2, 0.1))


def test_a_tiff_with_white_zero_is_read_the_right_way_up(tmp_path: Path) -> None:
    """Pillow turns 8 bits around, but not 16."""
    tifffile = pytest.importorskip("tifffile")
    for made in (GREY, values(16)):
        tifffile.imwrite(tmp_path / "a.tif", made, photometric="miniswhite")
        assert np.array_equal(read_picture(tmp_path / "a.tif").values, np.invert(made))
    for byteorder in "<>":
        tifffile.imwrite(tmp_path / "a.tif", values(16), byteorder=byteorder)
        assert read_picture(tmp_path / "a.tif").values.dtype == np.uint16


REFUSED = {
    "colour.png": (np.dstack([GREY, GREY, GREY + 1]), "a colour image"),
    "transparent.png": (np.dstack([GREY] * 4), "transparent"),
    "one-bit.png": (GREY > 99, "samples of 1 bits"),
    "float.npy": (GREY.astype(float), "float64; it must have two dimensions"),
    "colour.npy": (np.dstack([GREY] * 3), "an array of 3 dimensions"),
    "empty.npy": (GREY[:0], "empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_pictures_are_refused(tmp_path: Path, name: str) -> None:
    pixels, says = REFUSED[name]
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    with pytest.raises(InputError, match=says):
        read_picture(path)


def test_what_pillow_would_cut_to_8_bits_is_refused(tmp_path: Path) -> None:
    codecs, tifffile = pytest.importorskip("imagecodecs"), pytest.importorskip("tifffile")
    made = np.dstack([values(16)] * 3)
    (tmp_path / "a.png").write_bytes(codecs.png_encode(made))
    tifffile.imwrite(tmp_path / "a.tif", made, photometric="rgb")
    for name in ("a.png", "a.tif"):
        with pytest.raises(InputError, match="colour of 16 bits"):
            read_picture(tmp_path / name)
    for name, other in (("float", np.float32), ("long", np.uint32)):
        tifffile.imwrite(tmp_path / f"{name}.tif", values(16).astype(other))
        with pytest.raises(InputError, match="samples of 32 bits"):
            read_picture(tmp_path / f"{name}.tif")
    tifffile.imwrite(tmp_path / "two.tif", np.stack([GREY, GREY]), photometric="minisblack")
    with pytest.raises(InputError, match="more than one image"):
        read_picture(tmp_path / "two.tif")


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg", "a.npy"])
def test_damaged_and_wrongly_named_files_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(InputError, match="No such file"):
        read_picture(path)
    path.write_bytes(EXAMPLE.read_bytes())
    with pytest.raises(InputError, match=r"a DICOM file with the name of a .*rename it to \.dcm"):
        read_picture(path)
    for content in (b"", b"not a picture", bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            read_picture(path)
    if path.suffix == ".npy":
        np.save(path, values(16))
    else:
        Image.fromarray(RNG.integers(0, 256, (64, 64)).astype(np.uint8)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged"):
        read_picture(path)


def test_a_file_does_not_allocate_what_it_claims(tmp_path: Path) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": (1 << 20, 1 << 20)}
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(InputError, match="more than 256 Mi pixels"):
        read_picture(tmp_path / "a.npy")


def test_values_above_the_stated_bits_are_refused(tmp_path: Path) -> None:
    write_picture(Picture(values(12), 12), tmp_path / "a.png", ".png")
    with pytest.raises(InputError, match=r"values from 0 to 4095 do not fit --bits 10"):
        read_picture(tmp_path / "a.png", 10)


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("a.dcm", "a.jpg", "JPEG is lossy"),
        ("a.png", "a.dcm", "no patient"),
        ("a.png", "a", "no pat"),
    ],
)
def test_formats_that_cannot_be_made_are_refused(source: str, target: str, says: str) -> None:
    with pytest.raises(OutputError, match=says):
        check_formats(Path(source), Path(target))


def test_frames_and_signed_values_need_another_format() -> None:
    with pytest.raises(OutputError, match="one frame, the input 2"):
        check_picture(Path("a.png"), 2, signed=False, windowed=False)
    with pytest.raises(OutputError, match="PNG holds no signed values"):
        check_picture(Path("a.png"), 1, signed=True, windowed=False)
    check_picture(Path("a.png"), 1, signed=True, windowed=True)
    check_picture(Path("a.npy"), 1, signed=True, windowed=False)


def test_the_format_of_a_stream_is_told_by_its_beginning() -> None:
    assert suffix_of_content(b"\x89PNG\r\n\x1a\n") == ".png"
    assert suffix_of_content(b"\x93NUMPY\x01\0") == ".npy"
    assert suffix_of_content(EXAMPLE.read_bytes()[:16]) == ".dcm"


def test_no_spacing_is_assumed_where_a_file_states_none(tmp_path: Path) -> None:
    for name in ("a.tif", "b.jpg", "c.png"):
        Image.fromarray(GREY).save(tmp_path / name)
        assert read_picture(tmp_path / name).spacing is None, name
    write_picture(Picture(GREY, 8), tmp_path / "d.tif", ".tif")
    assert read_picture(tmp_path / "d.tif").spacing is None
    for name in ("e.tif", "f.jpg", "g.png"):
        Image.fromarray(GREY).save(tmp_path / name, dpi=(254, 127))
        assert read_picture(tmp_path / name).spacing == pytest.approx((0.2, 0.1), rel=1e-3), name


def test_a_spacing_that_a_format_cannot_state_is_left_out(tmp_path: Path) -> None:
    for spacing in (1e-9, 1e12):
        write_picture(Picture(GREY, 8, (spacing, spacing)), tmp_path / "a.png", ".png")
        assert read_picture(tmp_path / "a.png").spacing is None


def test_images_whose_values_or_place_would_change_are_refused(tmp_path: Path) -> None:
    image = Image.fromarray(GREY)
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=turned)
    image.save(tmp_path / "key.png", transparency=7)
    image.convert("1").save(tmp_path / "bits.png")
    image.save(tmp_path / "two.tif", save_all=True, append_images=[image])
    image.save(tmp_path / "signed.tif", tiffinfo={339: 2})
    for name, says in {
        "turned.jpg": "orientation 6", "key.png": "transparent", "bits.png": "samples of 1 bits",
        "two.tif": "more than one image", "signed.tif": "signed values of 8 bits",
    }.items():  # fmt: skip
        with pytest.raises(UnsupportedImageError, match=says):
            read_picture(tmp_path / name)


def test_more_bits_than_a_file_has_are_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    with pytest.raises(UnsupportedImageError, match="8 bits, fewer than --bits 12"):
        read_picture(tmp_path / "a.png", 12)


@pytest.mark.parametrize(
    "header",
    ["((((", "{'descr': '<u2', 'fortran_order': False, 'shape': (True, 2)}",
     "{'descr': '<u2', 'fortran_order': False, 'shape': (-1, 1)}",
     "{'descr': '<u2', 'fortran_order': False, 'shape': (9000, 9000)}"],
)  # fmt: skip
def test_a_damaged_npy_header_is_refused(tmp_path: Path, header: str) -> None:
    text = header.encode().ljust(117) + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64)
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        read_picture(tmp_path / "a.npy")


def test_a_dicom_preamble_may_be_that_of_a_tiff() -> None:
    assert suffix_of_content(b"II*\0".ljust(128, b"\0") + b"DICM") == ".dcm"
    assert suffix_of_content(b"II*\0".ljust(132, b"\0")) == ".tif"


@pytest.mark.slow
def test_an_output_may_be_larger_than_an_input(tmp_path: Path) -> None:
    """Pillow's own limit is 179 million pixels, and ours of inputs is 268."""
    large = np.zeros((16400, 16400), np.uint8)
    for suffix in (".png", ".npy"):
        write_picture(Picture(large, 8), tmp_path / f"a{suffix}", suffix)
