"""``cxrsr verify``."""

import json
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrsr_cli.errors import ExitCode
from cxrsr_cli.networks.config import Agreement

if TYPE_CHECKING:
    from cxrsr_cli.verify.verify import VerificationReport


def verify(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The original file.")],
    derived: Annotated[
        Path, typer.Argument(metavar="DERIVED", help="The file that was derived from it.")
    ],
    agreement: Annotated[
        Agreement,
        typer.Option(
            help="What the mean of each block of the derived image must be: the source's pixel, "
            "the same to within its estimated noise, or anything."
        ),
    ] = Agreement.NOISE,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show only the checks that fail.")
    ] = False,
) -> None:
    """Check a derived object against its source.

    Checks provenance, content, geometry and photometric meaning, and that the
    means of its blocks are the source's pixels. Exit codes: 0 all checks hold, 5 a file
    cannot be read, 9 a check fails.
    """
    from cxrsr_cli.verify.verify import verify as audit

    verification = audit(source, derived, agreement=agreement)
    if as_json:
        typer.echo(json.dumps(_facts(verification), indent=2))
    else:
        for finding in verification.findings:
            if not (quiet and finding.holds):
                word = "holds" if finding.holds else "FAILS"
                detail = f": {finding.detail}" if finding.detail else ""
                typer.echo(f"{word}  {finding.aspect:<11}  {finding.claim}{detail}")
    raise typer.Exit(ExitCode.OK if verification.holds else ExitCode.VERIFICATION)


def _facts(verification: "VerificationReport") -> dict[str, Any]:
    psnr = verification.lr_psnr
    deviation = asdict(verification.deviation)
    del deviation["noise"]  # one of those below
    return {
        "schema": "cxrsr-verification/1",
        "holds": verification.holds,
        "scale": verification.scale,
        "deviation": deviation,
        "lr_psnr": psnr if isfinite(psnr) else None,
        "noise": [asdict(curve) for curve in verification.noise],
        "findings": [asdict(finding) for finding in verification.findings],
    }
