"""``cxrsr verify``."""

import json
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrsr_cli.errors import ExitCode

if TYPE_CHECKING:
    from cxrsr_cli.verify.verify import VerificationReport

_MIN_LR_PSNR = 45.0
"""dB, as NTIRE 2021 asks of super-resolution that is true to its input."""


def verify(
    source: Annotated[Path, typer.Argument(help="The original.")],
    derived: Annotated[Path, typer.Argument(help="What was made of it.")],
    least_lr_psnr: Annotated[
        float,
        typer.Option(
            "--lr-psnr", metavar="DB", help="What the downsampled output must reach at least."
        ),
    ] = _MIN_LR_PSNR,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say what fails only.")] = False,
) -> None:
    """Audit a derived object against its source.

    Provenance, content, geometry, photometric meaning, and that it downsamples
    to its source. Exit codes: 0 all holds, 5 a file cannot be read, 9 something
    does not hold.
    """
    from cxrsr_cli.verify.verify import verify as audit

    verification = audit(source, derived, min_lr_psnr=least_lr_psnr)
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
    return {
        "schema": "cxrsr-verification/1",
        "holds": verification.holds,
        "scale": verification.scale,
        "deviation": asdict(verification.deviation),
        "lr_psnr": psnr if isfinite(psnr) else None,
        "findings": [asdict(finding) for finding in verification.findings],
    }
