"""Upscale detectors' images at their own resolution, and show their noise before and after.

    python -m benchmarks.detectors [--scale 2 4 8] [--model rir-s]

No truth exists at this resolution. So the noise is judged, in flat patches by its
power spectrum, and by eye. Puts tables and pictures into docs/studies/detectors.md. Needs
the images below data/ and the extra 'plot'; takes five minutes of one core.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.machine_info import machine
from benchmarks.noise_power import Corner, NoisePower, flat_patches
from benchmarks.run_study import fill
from benchmarks.study_config import PAGES, ROOT
from cxrsr_cli.dicom.acceptance import AcceptanceOverride
from cxrsr_cli.evaluation.tables import Table
from cxrsr_cli.images.image_files import GrayscaleImage, read_images
from cxrsr_cli.inference.agreement import SIGMAS
from cxrsr_cli.inference.noise_curve import NoiseCurve
from cxrsr_cli.inference.normalisation import Normalisation
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.networks.config import DEFAULT_NOISE_REDUCTION
from cxrsr_cli.networks.model_files import DEFAULT_MODEL, find_model
from cxrsr_cli.networks.resampling import upsample
from cxrsr_cli.options import UpscaleOptions
from cxrsr_cli.upscaler import Upscaler

PAGE = PAGES / "detectors.md"
BICUBIC = "bicubic"
REDUCTIONS = (0.0, DEFAULT_NOISE_REDUCTION, 1.0)

BANDS = ((0.0, 0.25), (0.25, 0.5), (0.5, 1.0), (1.0, np.inf))
"""Of frequencies, where 1 is the source's Nyquist frequency."""

REGION, REGIONS = 128, 3
"""Side of a flat region in source pixels, and their number in an image. Each is four patches."""

CROPS = {2: (80, 2), 4: (40, 2), 8: (40, 1)}
"""Side of the crop shown at each scale in source pixels, and its zoom: all are equally large."""

_ROUNDING = 0.2
"""Stored units. Rounding seldom moves the mean of a block by more."""

_GAP, _TITLE = 4, 16
_PERCENTILES = (1, 99)

Pixels = NDArray[np.int32]


@dataclass(frozen=True)
class Detector:
    """An image as its detector made it.

    Attributes
    ----------
    name : str
        In the tables and in the name of the picture.
    path : str
        In the checkout.
    centre : tuple of int
        Row and column of the middle of the crop that is shown.
    """

    name: str
    path: str
    centre: Corner

    @cached_property
    def image(self) -> GrayscaleImage:
        """The whole image."""
        allowed = frozenset(AcceptanceOverride)
        (image,) = read_images(ROOT / self.path, 1, allowed)
        return image

    @cached_property
    def stored(self) -> Pixels:
        """Stored values of the whole image."""
        return self.image.values[0, 0].numpy().astype(np.int32)

    @cached_property
    def noise(self) -> NoiseCurve:
        """Noise of the whole image, as `upscale` estimates it."""
        return NoiseCurve.estimate(self.stored, self.image.pixel_range)

    @cached_property
    def normalisation(self) -> Normalisation:
        """Range of values of the whole image, as the network sees it."""
        image = self.image
        return Normalisation.from_image(image.values, inverted=image.inverted)

    @cached_property
    def regions(self) -> list[Corner]:
        """Where its flat regions are."""
        return flat_patches(self.stored, REGION, REGIONS)

    @property
    def flat(self) -> Pixels:
        """Flat patches of the source, ``(4 * REGIONS, REGION / 2, REGION / 2)``."""
        return quarters([self.cut(corner, REGION) for corner in self.regions])

    def cut(self, corner: Corner, side: int) -> Pixels:
        """Cut a square out of the source."""
        top, left = corner
        return self.stored[top : top + side, left : left + side]

    def enlarge(self, method: "Method", corner: Corner, side: int) -> Pixels:
        """Upscale a square as if the whole image had been upscaled.

        Parameters
        ----------
        method : Method
            How.
        corner : tuple of int
            Top and left.
        side : int
            In source pixels.
        """
        margin, scale = method.margin, method.scale
        begin = [max(first - margin, 0) for first in corner]
        rows, columns = (
            slice(start, first + side + margin) for start, first in zip(begin, corner, strict=True)
        )
        upscaled = method.upscale(self, self.stored[rows, columns])
        top, left = (scale * (first - start) for first, start in zip(corner, begin, strict=True))
        return upscaled[top : top + scale * side, left : left + scale * side]


DETECTORS = (
    Detector("966", "data/dicom/chest/966_fixed.dcm", (1330, 540)),
    Detector("RG1", "data/dicom/chest/RG1_J2KR.dcm", (420, 1230)),
    Detector(
        "NIH",
        "data/dicom/chest/1.3.6.1.4.1.11129.5.5.110503645592756492463169821050252582267888.dcm",
        (560, 330),
    ),
    Detector(
        "RSNA",
        "data/dicom/chest/1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm",
        (530, 440),
    ),
    Detector("Hannover A", "data/cxr/hannover10/test/042f06a9_53c9be49.dcm", (400, 620)),
    Detector("Hannover B", "data/cxr/hannover10/test/85901531_1663b242.dcm", (560, 700)),
    Detector("Hannover C", "data/cxr/hannover10/test/5c10b6aa_2fdd55b8.dcm", (700, 600)),
)


@dataclass(frozen=True, slots=True)
class Method:
    """A way to upscale.

    Attributes
    ----------
    name : str
        In tables and pictures.
    scale : int
        Factor.
    predictor : Predictor or None
        The model; None for bicubic interpolation.
    """

    name: str
    scale: int
    predictor: Predictor | None = None

    @property
    def margin(self) -> int:
        """Pixels around a part of the source that decide how the part comes out."""
        return self.predictor.architecture.receptive_radius if self.predictor else 2

    def upscale(self, detector: Detector, part: Pixels) -> Pixels:
        """Upscale a part with the noise and the range of values of the whole image."""
        pixel_range = detector.image.pixel_range
        if self.predictor is None:
            values = detector.image.values.new_tensor(part)[None, None]
            enlarged = upsample(values, self.scale).round_()
            limits = pixel_range.minimum, pixel_range.maximum
            return enlarged.clamp_(*limits)[0, 0].numpy().astype(np.int32)
        strips = self.predictor.predict_strips(
            part, pixel_range, noise=detector.noise, normalisation=detector.normalisation
        )
        return np.concatenate([strip for _, strip in strips])


def main() -> None:
    """Fill the page in."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=int, nargs="+", choices=CROPS, default=list(CROPS))
    parser.add_argument("--model", default=DEFAULT_MODEL)
    arguments = parser.parse_args()
    methods = [make_methods(arguments.model, scale) for scale in arguments.scale]
    fill(PAGE, "sources", sources_table(DETECTORS).as_markdown())
    spectra = {
        (detector, method): measure(detector, method)
        for detector in DETECTORS
        for of_scale in methods
        for method in of_scale
    }
    device = next(method.predictor.device for method in methods[0] if method.predictor)
    for of_scale in methods:
        table = spectra_table({
            (detector, method): spectra[detector, method]
            for detector in DETECTORS
            for method in of_scale
        })  # fmt: skip
        place = f"spectra x{of_scale[0].scale}"
        fill(PAGE, place, f"{table.as_markdown(left_columns=2)}\n\n{machine(device)}")
        print(f"{place}\n{table.as_text()}", flush=True)
    draw_spectra(spectra, PAGES / "detectors-spectra.png")
    for detector in DETECTORS:
        name = detector.name.lower().replace(" ", "-")
        draw_crops(detector, methods).save(PAGES / f"detectors-{name}.png", optimize=True)


def make_methods(model: str, scale: int) -> list[Method]:
    """Load bicubic interpolation, and a model with each noise reduction."""
    file = find_model(model, scale)
    loaded = [
        Upscaler.load(file, UpscaleOptions(scale=scale, noise_reduction=reduction)).predictor
        for reduction in REDUCTIONS
    ]
    names = [f"noise reduction {reduction:g}" for reduction in REDUCTIONS]
    models = [Method(name, scale, each) for name, each in zip(names, loaded, strict=True)]
    return [Method(BICUBIC, scale), *models]


class Measurement(NamedTuple):
    """What is measured of an output in the flat patches."""

    power: NoisePower
    held: float
    """Share of the source's pixels from which the block's mean differs by as much as agreement
    allows: the network made more of a difference."""


Spectra = Mapping[tuple[Detector, Method], Measurement]


def measure(detector: Detector, method: Method) -> Measurement:
    """Upscale the flat patches and measure their noise."""
    parts = quarters([detector.enlarge(method, corner, REGION) for corner in detector.regions])
    source, side = detector.flat, REGION // 2
    blocks = parts.reshape(-1, side, method.scale, side, method.scale)
    held = np.abs(blocks.mean((2, 4)) - source) >= SIGMAS * detector.noise.at(source) - _ROUNDING
    return Measurement(NoisePower.of(parts, method.scale), float(held.mean()))


def quarters(regions: Sequence[Pixels]) -> Pixels:
    """Cut each region of ``(N, N)`` into four patches."""
    side = len(regions[0]) // 2
    return np.stack(regions).reshape(-1, 2, side, 2, side).swapaxes(2, 3).reshape(-1, side, side)


def sources_table(detectors: Sequence[Detector]) -> Table:
    """Show the noise of the sources, as measured and as `upscale` estimates it."""
    titles = ["", "pixels", "range", "values of the patches", "noise", "estimated", "noise by band"]
    rows = []
    for detector in detectors:
        patches = detector.flat
        power = NoisePower.of(patches, 1)
        shares = [power.variance(*band) / power.variance() for band in BANDS]
        rows.append([
            detector.name,
            "{}x{}".format(*detector.stored.shape),
            f"{detector.image.minimum:g} to {detector.image.maximum:g}",
            f"{np.percentile(patches, 1):.0f} to {np.percentile(patches, 99):.0f}",
            f"{power.variance() ** 0.5:.2f}",
            f"{float(np.square(detector.noise.at(patches)).mean()) ** 0.5:.2f}",
            ", ".join(f"{share:.0%}" for share in shares),
        ])  # fmt: skip
    return Table([(title, 0) for title in titles], rows)


def spectra_table(spectra: Spectra) -> Table:
    """Compare the noise of the outputs at one scale with that of bicubic interpolation."""
    bands = [f"{low:g} to {high:g}" if high < np.inf else "beyond 1" for low, high in BANDS]
    titles = ["", "", "noise", *bands, "share beyond 1", "lines: rows", "columns", "both"]
    titles += ["pattern to noise", "held"]
    bicubic = {
        detector: measured.power
        for (detector, method), measured in spectra.items()
        if method.name == BICUBIC
    }
    rows = []
    for (detector, method), (power, held) in spectra.items():
        reference, all_of_it = bicubic[detector], power.variance()
        rows.append([
            detector.name,
            method.name,
            f"{all_of_it**0.5:.2f}",
            *(f"{power.variance(*band) / reference.variance(*band):.2f}" for band in BANDS),
            f"{power.variance(*BANDS[-1]) / all_of_it:.1%}",
            *(f"{line:.1f}" for line in power.lines()),
            f"{power.pattern / all_of_it**0.5:.2%}",
            f"{held:.1%}" if method.predictor else "",
        ])  # fmt: skip
    return Table([(title, 0) for title in titles], rows)


def draw_spectra(spectra: Spectra, path: Path) -> None:
    """Draw a panel for each image and scale."""
    detectors = list(dict.fromkeys(detector for detector, _ in spectra))
    scales = list(dict.fromkeys(method.scale for _, method in spectra))
    figure = Figure(figsize=(3.6 * len(scales), 2.1 * len(detectors)), layout="constrained")
    panels = figure.subplots(len(detectors), len(scales), squeeze=False)
    for row, detector in zip(panels, detectors, strict=True):
        for axes, scale in zip(row, scales, strict=True):
            axes.semilogy(*NoisePower.of(detector.flat, 1).radial(), color="black", label="source")
            for (of, method), measured in spectra.items():
                if of is detector and method.scale == scale:
                    axes.semilogy(*measured.power.radial(), label=method.name, linewidth=1)
            axes.set_title(f"{detector.name} x{scale}", fontsize=8)
            axes.axvline(1, color="gray", linewidth=0.5)
            axes.tick_params(labelsize=7)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    figure.supxlabel("frequency; 1 is the source's Nyquist frequency", fontsize=8)
    figure.supylabel("stored units squared by cycles per source pixel squared", fontsize=8)
    figure.savefig(path, dpi=80)
    with Image.open(path) as drawn:
        drawn.convert("RGB").quantize(32).save(path, optimize=True)


def draw_crops(detector: Detector, methods: Sequence[Sequence[Method]]) -> Image.Image:
    """Draw a row for each scale: the source, then each method, in the same window."""
    titles = ["source", *(method.name for method in methods[0])]
    rows = [_draw_row(detector, of_scale) for of_scale in methods]
    height, width = np.vstack(rows).shape
    picture = Image.new("L", (width, height + _TITLE), 255)
    picture.paste(Image.fromarray(np.vstack(rows)), (0, _TITLE))
    for index, title in enumerate(titles):
        ImageDraw.Draw(picture).text((index * width // len(titles), 2), title, fill=0)
    return picture


def _draw_row(detector: Detector, methods: Sequence[Method]) -> NDArray[np.uint8]:
    side, zoom = CROPS[methods[0].scale]
    row, column = detector.centre
    corner = row - side // 2, column - side // 2
    source = detector.cut(corner, side)
    low, high = np.percentile(source, _PERCENTILES)
    panels = [source.repeat(methods[0].scale, 0).repeat(methods[0].scale, 1)]
    panels += [detector.enlarge(method, corner, side) for method in methods]
    shown = np.stack(panels).repeat(zoom, 1).repeat(zoom, 2)
    grey = np.clip((shown - low) / (high - low), 0, 1)
    grey = 1 - grey if detector.image.inverted else grey
    framed = np.pad(grey, ((0, 0), (0, _GAP), (0, _GAP)), constant_values=1)
    # 128 levels of grey make the file smaller, and no eye sees it in noise.
    return np.hstack(list(2 * (127 * framed).round().astype(np.uint8)))


if __name__ == "__main__":
    main()
