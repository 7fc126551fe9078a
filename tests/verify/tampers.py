"""Changes of a derived object that an audit must find, and by what it finds them."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from scipy.ndimage import zoom

from cxrsr_cli.inference.agreement import AgreementDeviation, read_noise
from cxrsr_cli.networks.config import Agreement

Pixels = NDArray[np.float64]
Change = Callable[[Any], object]


class FoundBy(Enum):
    """What finds a change."""

    AUDIT = auto()
    """The two files alone."""
    HEADER = auto()
    """The two files, but only deriving the header again."""
    RECOMPUTATION = auto()
    """Only making the output again."""


@dataclass(frozen=True, slots=True)
class Tamper:
    """A change and what finds it."""

    name: str
    found_by: FoundBy
    change: Change


def pixels_of(dataset: pydicom.FileDataset) -> Pixels:
    """Return the stored values of an uncompressed image."""
    values: Pixels = dataset.pixel_array.astype(np.float64)
    return values


def set_pixels(dataset: pydicom.FileDataset, values: Pixels) -> None:
    """Write stored values, within their range."""
    legal = values.round().clip(0, (1 << dataset.BitsStored) - 1)
    dataset.PixelData = legal.astype(dataset.pixel_array.dtype).tobytes()


def painted(change: Callable[[Pixels], Pixels]) -> Change:
    """Return a change of the pixels."""
    return lambda dataset: set_pixels(dataset, change(pixels_of(dataset)))


def restate(dataset: pydicom.FileDataset, source: NDArray[np.uint16]) -> None:
    """Make the header true of the changed pixels again, as a forger would."""
    head, _, rest = dataset.DerivationDescription.partition("mean of each block")
    tail = rest[rest.index("; cxrsr ") :]
    pixels, noise = dataset.pixel_array, read_noise(rest)
    deviation = AgreementDeviation.measure(pixels, source.astype(np.int32), noise=noise)
    dataset.DerivationDescription = head + deviation.describe(Agreement.NOISE) + tail
    dataset["LargestImagePixelValue"].value = int(pixels.max())


CENTRE = (150, 160)
"""Row and column of the output, in the lung."""


def disc(diameter: float, contrast: float, *, smooth: bool = False) -> Change:
    """Paint a disc, or a nodule whose contrast falls off towards its border."""

    def change(pixels: Pixels) -> Pixels:
        rows, columns = np.indices(pixels.shape)
        distance = np.hypot(rows - CENTRE[0], columns - CENTRE[1]) / (diameter / 2)
        shape = np.clip(1 - distance**2, 0, 1) if smooth else distance <= 1
        changed: Pixels = pixels + contrast * shape
        return changed

    return painted(change)


def in_patch(change: Callable[[Pixels], Pixels], side: int = 20) -> Change:
    """Change a square patch alone."""
    top, left = CENTRE
    patch = (slice(top, top + side), slice(left, left + side))

    def paint(pixels: Pixels) -> Pixels:
        pixels[patch] = change(pixels[patch])
        return pixels

    return painted(paint)


def checkerboard(shape: tuple[int, ...]) -> Pixels:
    """Return a pattern whose mean over each block of 2 x 2 pixels is zero."""
    rows, columns = np.indices(shape)
    return np.where((rows + columns) % 2, 1.0, -1.0)


def block_means(pixels: Pixels) -> Pixels:
    """Replace every block of 2 x 2 pixels by its mean."""
    rows, columns = (side // 2 for side in pixels.shape)
    means: Pixels = pixels.reshape(rows, 2, columns, 2).mean((1, 3))
    return means.repeat(2, 0).repeat(2, 1)


def interpolated(pixels: Pixels) -> Pixels:
    """Return cubic interpolation of the source, moved so that its blocks keep their means."""
    rows, columns = (side // 2 for side in pixels.shape)
    means: Pixels = pixels.reshape(rows, 2, columns, 2).mean((1, 3))
    smooth: Pixels = zoom(means, 2, order=3, grid_mode=True, mode="grid-mirror")
    lacking = means - smooth.reshape(rows, 2, columns, 2).mean((1, 3))
    agreeing: Pixels = smooth + lacking.repeat(2, 0).repeat(2, 1)
    return agreeing


def with_detail(gain: float) -> Callable[[Pixels], Pixels]:
    """Multiply what varies inside of blocks."""
    return lambda pixels: block_means(pixels) + gain * (pixels - block_means(pixels))


def put(keyword: str, value: object) -> Change:
    """Set an attribute."""
    return lambda dataset: setattr(dataset, keyword, value)


def drop(keyword: str) -> Change:
    """Remove an attribute."""
    return lambda dataset: delattr(dataset, keyword)


def edit(keyword: str, old: str, new: str) -> Change:
    """Replace a part of a text."""

    def change(dataset: Dataset) -> None:
        text = str(dataset[keyword].value)
        assert old in text
        setattr(dataset, keyword, text.replace(old, new))

    return change


def equipment(change: Callable[[Dataset], object]) -> Change:
    """Change our own item of Contributing Equipment."""
    return lambda dataset: change(dataset.ContributingEquipmentSequence[-1])


def reference(keyword: str, value: object) -> Change:
    """Change the reference to the source."""
    return lambda dataset: setattr(dataset.SourceImageSequence[0], keyword, value)


def foreign_icon(dataset: Dataset) -> None:
    """Add an icon of another image."""
    icon = Dataset()
    icon.Rows = icon.Columns = 8
    icon.add_new("PixelData", "OB", b"\0" * 64)
    dataset.IconImageSequence = Sequence([icon])


def nested_pixels(dataset: Dataset) -> None:
    """Add encapsulated pixel data in an item of a private sequence."""
    item = Dataset()
    item.add_new("PixelData", "OB", encapsulate([b"\xff\xd8\xff\xd9"]))
    item["PixelData"].is_undefined_length = True
    dataset.private_block(0x0009, "TEST", create=True).add_new(0x10, "SQ", Sequence([item]))


def false_source(dataset: Dataset) -> None:
    """Put a reference to another image before the true one."""
    item = Dataset()
    item.ReferencedSOPClassUID = dataset.SOPClassUID
    item.ReferencedSOPInstanceUID = "1.2.3"
    dataset.SourceImageSequence.insert(0, item)


def listed_elsewhere(dataset: Dataset) -> None:
    """List an image that nothing refers to as referenced."""
    series, instance = Dataset(), Dataset()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = dataset.SOPClassUID, "1.2.4"
    series.SeriesInstanceUID = "1.2.5"
    series.ReferencedInstanceSequence = Sequence([instance])
    dataset.ReferencedSeriesSequence.append(series)


def other_model(dataset: Dataset) -> None:
    """Name another model's weights, wherever they are named."""
    item = dataset.ContributingEquipmentSequence[-1]
    old = "".join(text.removeprefix("SHA-256 ") for text in item.SoftwareVersions[2:4])
    new = "0" * len(old)
    item.SoftwareVersions = [
        *item.SoftwareVersions[:2], "SHA-256 " + new[:32], "SHA-256 " + new[32:],
    ]  # fmt: skip
    item.ContributionDescription = item.ContributionDescription.replace(old, new)
    dataset.DeviceSerialNumber = item.DeviceSerialNumber = new
    dataset.SoftwareVersions = list(item.SoftwareVersions)
    dataset.DerivationDescription = dataset.DerivationDescription.replace(old, new)


def file_meta(keyword: str, value: str) -> Change:
    """Change the meta information alone."""
    return lambda dataset: setattr(dataset.file_meta, keyword, value)


def scaled_noise(factor: float) -> Change:
    """State another noise than the source's."""

    def change(dataset: Dataset) -> None:
        head, mark, tail = dataset.DerivationDescription.partition("sigma at stored values: ")
        curve, rest = tail.split(";", 1)
        pairs = [pair.split(": ") for pair in curve.split(", ")]
        forged = ", ".join(f"{value}: {float(sigma) * factor:.3g}" for value, sigma in pairs)
        dataset.DerivationDescription = f"{head}{mark}{forged};{rest}"

    return change


def pixel_tampers(sigma: float) -> list[Tamper]:
    """Return changes of pixels, for a source whose noise is `sigma` at their place."""
    audit, recomputation = FoundBy.AUDIT, FoundBy.RECOMPUTATION
    # The faintest of the large discs move blocks that were at their bound already.
    sizes = [
        # output pixels, sigmas, found by
        (1, 2, recomputation), (1, 40, audit), (2, 1, recomputation), (2, 10, audit),
        (4, 1, recomputation), (4, 6, audit), (8, 0.5, recomputation), (8, 4, audit),
        (16, 0.25, recomputation), (16, 2, audit), (16, -2, audit), (30, 0.1, recomputation),
        (30, 1, audit), (30, -1, audit), (60, 0.05, audit), (60, 0.5, audit),
        (60, -0.5, audit), (120, 0.06, audit), (120, 0.4, audit), (120, -0.4, audit),
    ]  # fmt: skip
    nodules = [(20, 3, audit), (40, 1.5, audit), (80, 1, audit), (120, 0.8, audit),
               (40, 0.1, recomputation)]  # fmt: skip
    units = [(1, 400), (3, 200), (10, 100), (20, 50), (24, -409), (40, 40), (80, 30), (120, -30)]
    return [
        *(
            Tamper(f"disc of {size} pixels, {contrast} sigma", by, disc(size, contrast * sigma))
            for size, contrast, by in sizes
        ),
        *(
            Tamper(
                f"nodule of {size} pixels, {contrast} sigma",
                by,
                disc(size, contrast * sigma, smooth=True),
            )
            for size, contrast, by in nodules
        ),
        *(
            Tamper(f"disc of {size} pixels, {contrast} units", audit, disc(size, contrast))
            for size, contrast in units
        ),
        Tamper("patch set to the largest value", audit, in_patch(lambda p: 0 * p + 4095)),
        Tamper("patch 200 units brighter", audit, in_patch(lambda p: p + 200)),
        Tamper("patch set to its mean", audit, in_patch(lambda p: 0 * p + p.mean(), 40)),
        Tamper(
            "checkerboard of 400 units", audit, in_patch(lambda p: p + 400 * checkerboard(p.shape))
        ),
        Tamper(
            "checkerboard of 3 sigma",
            recomputation,  # the bound where ribs and vessels are steep
            in_patch(lambda p: p + 3 * sigma * checkerboard(p.shape)),
        ),
        Tamper(
            "checkerboard of a tenth of a sigma",
            recomputation,
            in_patch(lambda p: p + sigma / 10 * checkerboard(p.shape)),
        ),
        Tamper("patch of block means", recomputation, in_patch(block_means)),
        Tamper("detail five times as strong", audit, painted(with_detail(5))),
        Tamper("detail a tenth stronger", recomputation, painted(with_detail(1.1))),
        Tamper("cubic interpolation instead of the network", recomputation, painted(interpolated)),
        Tamper("shifted by one column", audit, painted(lambda p: np.roll(p, 1, 1))),
        Tamper("shifted by one row", audit, painted(lambda p: np.roll(p, 1, 0))),
        Tamper("flipped", audit, painted(np.fliplr)),
        Tamper("rotated", audit, painted(lambda p: np.rot90(p, 2))),
        Tamper("contrast raised by 2 %", audit, painted(lambda p: 1.02 * p)),
        Tamper("brighter by half a sigma", audit, painted(lambda p: p + sigma / 2)),
        Tamper("brighter by one unit in one pixel", recomputation, disc(1, 2)),
        Tamper("inverted", audit, painted(lambda p: 4095 - p)),
        Tamper(
            "noise of three sigma added",
            audit,
            painted(lambda p: p + np.random.default_rng(0).normal(0, 3 * sigma, p.shape)),
        ),
        Tamper("one column black", audit, painted(lambda p: p * (np.arange(p.shape[1]) != 160))),
    ]


BY_DERIVING_AGAIN = (
    "SOP Instance UID replaced", "Series Instance UID replaced", "Series Number another",
    "Series Description that clears for reading", "approval added", "agreement denied",
    "earlier description forged", "agreement none stated", "noise reduction 1 stated",
    "another precision stated", "another model named", "Image Type with another value",
    "Largest Image Pixel Value false", "private element removed",
)  # fmt: skip
"""Names of the changes that contradict nothing but how the header comes about."""


def header_tampers() -> list[Tamper]:
    """Return changes of header and meta information."""
    changes: list[tuple[str, Change]] = [
        ("SOP Instance UID replaced", lambda ds: (
            put("SOPInstanceUID", "2.25.1")(ds),
            file_meta("MediaStorageSOPInstanceUID", "2.25.1")(ds),
        )),
        ("Series Instance UID replaced", put("SeriesInstanceUID", "2.25.2")),
        ("Study Instance UID replaced", put("StudyInstanceUID", "1.2.3")),
        ("Media Storage SOP Instance UID replaced", file_meta(
            "MediaStorageSOPInstanceUID", "2.25.3")),
        ("Media Storage SOP Class UID replaced", file_meta(
            "MediaStorageSOPClassUID", "1.2.840.10008.5.1.4.1.1.7")),
        ("Patient ID replaced", put("PatientID", "another")),
        ("Patient's Name replaced", put("PatientName", "Another^One")),
        ("Patient's Sex removed", drop("PatientSex")),
        ("Patient Comments added", put("PatientComments", "new")),
        ("Modality removed", drop("Modality")),
        ("Laterality added", put("ImageLaterality", "L")),
        ("Series Number the source's", put("SeriesNumber", 2)),
        ("Series Number another", put("SeriesNumber", 77)),
        ("Series Description without warning", put("SeriesDescription", "Chest")),
        ("Series Description that clears for reading", put(
            "SeriesDescription", "CLEARED FOR READING, not for diagnosis")),
        ("SOP Instance Status authorized", put("SOPInstanceStatus", "AO")),
        ("authorization added", put("SOPAuthorizationDateTime", "20260101000000")),
        ("approval added", put("ApprovalStatus", "APPROVED")),
        ("icon added", foreign_icon),
        ("digital signature added", put("DigitalSignaturesSequence", Sequence([Dataset()]))),
        ("Derivation Code Sequence removed", drop("DerivationCodeSequence")),
        ("Derivation Description cut", put("DerivationDescription", "x2 ")),
        ("agreement denied", edit("DerivationDescription", "to within", "nowhere near")),
        ("earlier description forged", lambda ds: put(
            "DerivationDescription", ds.DerivationDescription + ". Earlier: checked by eye")(ds)),
        ("twice the noise stated", scaled_noise(2)),
        ("a tenth more noise stated", scaled_noise(1.1)),
        ("Contributing Equipment removed", drop("ContributingEquipmentSequence")),
        ("parameters removed", equipment(put("ContributionDescription", "AI"))),
        ("agreement none stated", equipment(edit(
            "ContributionDescription", '"agreement":"noise"', '"agreement":"none"'))),
        ("noise reduction 1 stated", equipment(edit(
            "ContributionDescription", '"noise_reduction":0.3', '"noise_reduction":1.0'))),
        ("another precision stated", equipment(edit(
            "ContributionDescription", '"fp32"', '"bf16"'))),
        ("another Device UID", equipment(put("DeviceUID", "2.25.9"))),
        ("another time of contribution", equipment(put(
            "ContributionDateTime", "19990101000000.000000+0000"))),
        ("another model named", other_model),
        ("source's equipment removed from Contributing Equipment", lambda ds: (
            ds.ContributingEquipmentSequence.pop(0))),
        ("source's equipment another", lambda ds: put("DeviceSerialNumber", "1")(
            ds.ContributingEquipmentSequence[0])),
        ("General Equipment the source's", put("Manufacturer", "ACME")),
        ("Device Serial Number of other weights", put("DeviceSerialNumber", "0" * 64)),
        ("Station Name added", put("StationName", "CR7")),
        ("Content Date another", put("ContentDate", "20010101")),
        ("Series Date added", put("SeriesDate", "20010101")),
        ("performed procedure step added", put("PerformedProcedureStepID", "1")),
        ("place in another archive added", put("RetrieveAETitle", "ARCHIVE")),
        ("Referenced Series Sequence removed", drop("ReferencedSeriesSequence")),
        ("another series listed as referenced", listed_elsewhere),
        ("Image Type primary", lambda ds: put(
            "ImageType", ["DERIVED", "PRIMARY", *ds.ImageType[2:]])(ds)),
        ("mark at the place of a standard value", put(
            "ImageType", ["DERIVED", "SECONDARY", "SUPERRESOLUTION"])),
        ("spacing of the source in a private element", lambda ds: ds.private_block(
            0x0009, "TEST").add_new(0x02, "DS", [2 * number for number in ds.PixelSpacing])),
        ("Detector Binning of the source", put("DetectorBinning", [2, 2])),
        ("source reference replaced", reference("ReferencedSOPInstanceUID", "1.2")),
        ("source reference of another class", reference("ReferencedSOPClassUID", "1.2")),
        ("spatial locations preserved", reference("SpatialLocationsPreserved", "YES")),
        ("second source before the true one", false_source),
        ("Image Type original", put("ImageType", ["ORIGINAL", "PRIMARY"])),
        ("Image Type with another value", lambda ds: put(
            "ImageType", [*ds.ImageType, "AXIAL"])(ds)),
        ("mark removed from Image Type", lambda ds: put("ImageType", list(ds.ImageType)[:-1])(ds)),
        ("Content Qualification PRODUCT", put("ContentQualification", "PRODUCT")),
        ("lossy compression denied", put("LossyImageCompression", "00")),
        ("lossy ratio dropped", drop("LossyImageCompressionRatio")),
        ("lossy method dropped", drop("LossyImageCompressionMethod")),
        ("Largest Image Pixel Value false", lambda ds: setattr(
            ds["LargestImagePixelValue"], "value", 5)),
        ("Instance Creation of 1999", put("InstanceCreationDate", "19990101")),
        ("another creator", put("InstanceCreatorUID", "2.25.4")),
        ("spacing of the source", put("PixelSpacing", [3.2, 3.2])),
        ("Imager Pixel Spacing removed", drop("ImagerPixelSpacing")),
        ("spacing added", put("NominalScannedPixelSpacing", [0.1, 0.1])),
        ("shutter not moved", put("ShutterLeftVerticalEdge", 3)),
        ("window changed", put("WindowWidth", 400)),
        ("polarity changed", put("PhotometricInterpretation", "MONOCHROME1")),
        ("slope changed", put("RescaleSlope", 2)),
        ("nested encapsulated pixel data", nested_pixels),
        ("private element changed", lambda ds: setattr(ds[0x0009, 0x1001], "value", "other")),
        ("private element removed", lambda ds: ds.__delitem__((0x0009, 0x1001))),
    ]  # fmt: skip
    return [
        Tamper(name, FoundBy.HEADER if name in BY_DERIVING_AGAIN else FoundBy.AUDIT, change)
        for name, change in changes
    ]
