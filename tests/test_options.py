"""Each option is declared once: all that names options is derived from that declaration."""

import json
import subprocess
import sys
from dataclasses import dataclass, fields
from typing import Any

import pytest
import typer
from pydantic import TypeAdapter, ValidationError
from typer.testing import CliRunner

from cxrsr_cli.cluster.envelope import pack, unpack
from cxrsr_cli.commands.options import make_options, with_upscale_options
from cxrsr_cli.dicom.acceptance import AcceptanceOverride
from cxrsr_cli.dicom.transfer_syntax import OutputTransferSyntax
from cxrsr_cli.errors import UsageError
from cxrsr_cli.networks.config import Agreement, Precision
from cxrsr_cli.options import (
    EquipmentRule,
    ImageTypeRule,
    OptionInfo,
    SeriesNumberRule,
    UpscaleOptions,
    option,
)
from cxrsr_cli.serve.routing import RoutingRule

OTHER: dict[str, tuple[Any, list[str], Any]] = {
    "scale": (2, ["--scale", "2"], 2),
    "model": ("rir-sp", ["--model", "rir-sp"], "rir-sp"),
    "device": ("cpu", ["--device", "cpu"], "cpu"),
    "precision": (Precision.BF16, ["--precision", "bf16"], "bf16"),
    "memory": (1 << 30, ["--memory", "1GiB"], 1 << 30),
    "agreement": (Agreement.EXACT, ["--agreement", "exact"], "exact"),
    "noise_reduction": (0.5, ["--noise-reduction", "0.5"], 0.5),
    "self_ensemble": (True, ["--self-ensemble"], True),
    "allow": (
        frozenset({AcceptanceOverride.BODY_PART, AcceptanceOverride.MODALITY}),
        ["--allow", "modality", "--allow", "body-part"],
        ["body-part", "modality"],
    ),
    "transfer_syntax": (OutputTransferSyntax.RLE, ["--transfer-syntax", "rle"], "rle"),
    "series_description": ("Ours", ["--series-description", "Ours"], "Ours"),
    "keep_private": (False, ["--drop-private"], False),
    "image_type_2": (ImageTypeRule.SOURCE, ["--image-type-2", "source"], "source"),
    "equipment": (EquipmentRule.SOURCE, ["--equipment", "source"], "source"),
    "series_number": (SeriesNumberRule.SOURCE, ["--series-number", "source"], "source"),
    "overwrite": (True, ["--overwrite"], True),
}
"""Of each option another value than its default, how the command takes it, and its JSON."""

NOT_IN_LEDGER = {"scale", "model", "device", "memory", "allow", "overwrite"}
"""The weights decide scale and model; a change of machine must not make an archive new."""
NOT_IN_UIDS = {"model", "allow", "transfer_syntax", "overwrite"}
NOT_IN_RULES = {"device", "memory", "overwrite"}


def from_command_line(
    arguments: list[str], kind: type[UpscaleOptions] = UpscaleOptions
) -> UpscaleOptions:
    """Return what a command with the options gets."""
    made: list[UpscaleOptions] = []

    def command(chosen: dict[str, Any]) -> None:
        made.append(make_options(chosen, kind))

    app = typer.Typer()
    app.command()(with_upscale_options(command, kind))
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return made[0]


def test_every_option_is_tested() -> None:
    assert [one.name for one in fields(UpscaleOptions)] == list(OTHER)


@pytest.mark.parametrize("name", OTHER)
def test_an_option_has_one_name_everywhere(name: str) -> None:
    value, arguments, plain = OTHER[name]
    default, other = UpscaleOptions(), UpscaleOptions(**{name: value})
    assert from_command_line(arguments) == other
    assert other.as_dict()[name] == plain, "the run report"
    assert json.loads(json.dumps(other.as_dict())) == other.as_dict()
    assert unpack(pack(other)) == other, "the messages of a cluster"
    assert (other.ledger_key() == default.ledger_key()) == (name in NOT_IN_LEDGER)
    assert (other.fingerprint() == default.fingerprint()) == (name in NOT_IN_UIDS)


@pytest.mark.parametrize("name", OTHER)
def test_a_rule_takes_the_options_that_are_not_of_the_whole_node(name: str) -> None:
    value, _, plain = OTHER[name]
    rule = {"name": "a", "send_to": ["archive"], "upscale": {name: plain}}
    if name in NOT_IN_RULES:
        with pytest.raises(ValidationError, match=f"{name} cannot be set in a rule"):
            TypeAdapter(RoutingRule).validate_python(rule)
    else:
        made = TypeAdapter(RoutingRule).validate_python(rule)
        assert made.upscale == UpscaleOptions(**{name: value})


def test_without_options_the_command_line_gives_the_defaults() -> None:
    assert from_command_line([]) == UpscaleOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class MoreOptions(UpscaleOptions):
    """The options, and one that the package does not know."""

    sharpness: int = option(0, "How sharp.", metavar="N")


def test_a_new_option_is_known_everywhere_by_its_declaration() -> None:
    default, sharp = MoreOptions(), MoreOptions(sharpness=3)
    assert from_command_line(["--sharpness", "3"], MoreOptions) == sharp
    assert TypeAdapter(MoreOptions).validate_python({"sharpness": 3}) == sharp
    assert sharp.as_dict()["sharpness"] == 3
    assert unpack(pack(sharp)) == sharp
    assert sharp.ledger_key() != default.ledger_key()
    assert sharp.fingerprint() != default.fingerprint()


def test_a_new_option_leaves_ledger_and_uids_of_earlier_outputs_as_they_are() -> None:
    earlier, later = UpscaleOptions(self_ensemble=True), MoreOptions(self_ensemble=True)
    assert later.ledger_key() == earlier.ledger_key()
    assert later.fingerprint() == earlier.fingerprint()


def test_a_text_cannot_imitate_other_options() -> None:
    imitation = UpscaleOptions(series_description='a", "self_ensemble": true, "b": "')
    assert json.loads(imitation.ledger_key()) == {
        "series_description": imitation.series_description
    }


def test_every_option_is_explained() -> None:
    assert all(OptionInfo.of(one).help for one in fields(UpscaleOptions))


@pytest.mark.parametrize("change", [{"scale": 3}, {"series_description": "x" * 46}], ids=str)
def test_an_illegal_value_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"3 is not one of 2, 4, 8|1 to 45 ASCII characters"):
        UpscaleOptions(**change)
    with pytest.raises(UsageError):
        make_options({**{one.name: one.default for one in fields(UpscaleOptions)}, **change})


@pytest.mark.process
def test_options_are_known_without_torch() -> None:
    program = "import cxrsr_cli.options, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
