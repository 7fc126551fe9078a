"""Choose the scale of each file by the spacing or the size that its output should have."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cxrsr_cli.common.files import ensure_unchanged
from cxrsr_cli.dicom.acceptance import check_acceptance
from cxrsr_cli.dicom.attributes import pixel_spacing
from cxrsr_cli.dicom.source import read_source
from cxrsr_cli.errors import NoFittingScaleError, OutOfScopeError
from cxrsr_cli.images.picture_files import is_picture, read_picture
from cxrsr_cli.networks.config import SCALES
from cxrsr_cli.options import Job, UpscaleOptions

_TOLERANCE = 1e-6
"""Share by which a spacing may exceed the wanted one: decimals of 16 characters are rounded."""


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Size of an image before it is upscaled.

    Attributes
    ----------
    rows, columns : int
        Pixels.
    spacing : float or None
        Millimetres from pixel to pixel, the larger of both directions, if the file states them.
    """

    rows: int
    columns: int
    spacing: float | None

    @classmethod
    def of_file(cls, path: Path, options: UpscaleOptions) -> "ImageSize":
        """Read it from a DICOM file, whose uncompressed pixels are not read, or a picture.

        Parameters
        ----------
        path : Path
            The file.
        options : UpscaleOptions
            They decide which objects are accepted.

        Raises
        ------
        InputError
            If the file cannot be read, or is refused at any scale.
        """
        if is_picture(path):
            picture = read_picture(path, options.bits)
            rows, columns = picture.values.shape
            return cls(rows, columns, max(picture.spacing) if picture.spacing else None)
        with ensure_unchanged(path):
            dataset = read_source(path, min_deferred_bytes=0).dataset
        check_acceptance(dataset, SCALES[0], options.allow, options.body_parts)
        spacing = pixel_spacing(dataset)
        larger = max(spacing.rows, spacing.columns) if spacing else None
        return cls(int(dataset.Rows or 0), int(dataset.Columns or 0), larger)


@dataclass(frozen=True, slots=True)
class ScaleChoice:
    """What the outputs of a run should be.

    Attributes
    ----------
    target_spacing : float or None
        Millimetres from pixel to pixel that an output should reach.
    max_side : int or None
        Rows and columns that an output must not exceed.
    """

    target_spacing: float | None = None
    max_side: int | None = None

    def choose(self, size: ImageSize) -> int:
        """Return the smallest scale that reaches the spacing, or the largest within the size.

        Raises
        ------
        OutOfScopeError
            If the image is fine or large enough already.
        NoFittingScaleError
            If it states no spacing, or no scale reaches the wanted one.
        """
        scales = list(SCALES)
        if self.target_spacing is not None:
            scales = [self._reaching(size.spacing, self.target_spacing)]
        if self.max_side is None:
            return scales[-1]
        largest = max(size.rows, size.columns)
        within = [scale for scale in SCALES if scale * largest <= self.max_side]
        if not within:
            raise OutOfScopeError(
                f"x{SCALES[0]} would make {SCALES[0] * largest} rows or columns, more than "
                f"--max-side {self.max_side}"
            )
        return min(scales[-1], within[-1])

    @staticmethod
    def _reaching(spacing: float | None, wanted: float) -> int:
        if spacing is None:
            raise NoFittingScaleError(
                "no pixel spacing is stated, so --target-spacing cannot choose; use --scale"
            )
        limit = wanted * (1 + _TOLERANCE)
        if spacing <= limit:
            raise OutOfScopeError(f"its pixel spacing is {spacing:g} mm already")
        scale = next((scale for scale in SCALES if spacing / scale <= limit), None)
        if scale is None:
            raise NoFittingScaleError(
                f"x{SCALES[-1]} makes a pixel spacing of {spacing / SCALES[-1]:g} mm, more than "
                f"--target-spacing {wanted:g}"
            )
        return scale


def group_by_scale(
    jobs: Sequence[Job], choice: ScaleChoice, size_of: Callable[[Path], ImageSize]
) -> dict[int, list[Job]]:
    """Group jobs by the scale that is chosen for each.

    Parameters
    ----------
    jobs : sequence of Job
        Planned.
    choice : ScaleChoice
        What the outputs should be.
    size_of : callable
        `ImageSize.of_file` with the options of the run.

    Returns
    -------
    dict
        Jobs by scale, the smallest first. A job for which none fits has the reason as its error;
        one that is fine enough is skipped, even if the user named it. One that cannot be read or
        is refused is in the first group, where its error is found again.
    """
    groups, others = dict[int, list[Job]](), list[Job]()
    for job in jobs:
        try:
            size = size_of(job.source) if job.error is None else None
        except Exception:  # the run finds it again, and says it of this file
            size = None
        if size is None:
            others.append(job)
            continue
        try:
            groups.setdefault(choice.choose(size), []).append(job)
        except OutOfScopeError as error:
            others.append(replace(job, error=error, is_named=False))
        except NoFittingScaleError as error:
            others.append(replace(job, error=error))
    if others:
        groups.setdefault(min(groups, default=SCALES[0]), []).extend(others)
    return dict(sorted(groups.items()))
