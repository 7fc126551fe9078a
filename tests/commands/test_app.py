"""The command line imports little before it has to, and `cxrsr info` shows what is installed."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from cxrsr_cli import versions
from cxrsr_cli.commands.app import app
from tests.conftest import Command


def test_info_shows_models_codecs_and_notice(cxrsr: Command) -> None:
    facts = json.loads(cxrsr("info", "--json").stdout)
    assert {"rir-s-x4"} <= {model["name"] for model in facts["models"]}
    (model,) = (model for model in facts["models"] if model["name"] == "rir-s-x4")
    assert (model["network"], model["parameters"]) == ("rir", 167_824), "as on its card"
    assert model["macs_per_input_pixel"] == 166_753
    assert facts["codecs"]["JPEG 2000 Image Compression (Lossless Only)"] is True
    assert "not for diagnosis" in facts["notice"]
    text = cxrsr("info").stdout
    assert "Not a medical device" in text
    assert "rir-s-x4: rir, 167,824 parameters, 166,753 MACs per input pixel" in text
    assert facts["models"][0]["sha256"][:12] in text


EXTRAS = {"pynetdicom": "net", "requests": "web", "distributed": "cluster"}
"""The extra that installs each library."""


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ((), "C-STORE (pynetdicom 1.2), STOW-RS (requests 1.2), clusters (distributed 1.2)"),
        (
            ("pynetdicom",),
            (
                "STOW-RS (requests 1.2), clusters (distributed 1.2); missing: C-STORE "
                "(pip install 'cxrsr[net]')"
            ),
        ),
        (
            tuple(EXTRAS),
            "missing: C-STORE, STOW-RS, clusters (pip install 'cxrsr[net,web,cluster]')",
        ),
    ],
)
def test_info_shows_which_extras_are_missing(
    missing: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {**dict.fromkeys(EXTRAS, "1.2"), **dict.fromkeys(missing)}
    monkeypatch.setattr(versions, "_version", found.get)
    for as_json in (True, False):
        done = CliRunner().invoke(app, ["info", *(["--json"] if as_json else [])])
        assert done.exit_code == 0
        if as_json:
            services = json.loads(done.stdout)["services"]
            assert {one["package"]: one["version"] for one in services} == found
            assert {one["package"]: one["extra"] for one in services} == EXTRAS
        else:
            assert f"Services: {words}\n" in done.stdout


@pytest.mark.process
@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["info"], ["upscale", "--help"], ["train", "--help"],
     ["upscale", "--scale", "3", "a", "b"], ["upscale", "--model", "none", "a", "b"],
     ["send", "--help"], ["send", "--retries", "-1", "a", "b"], ["serve", "--help"], ["serve"],
     ["queue"], ["queue", "list", "--help"], ["queue", "list", "nowhere"],
     ["queue", "retry", "--help"], ["queue", "purge", "--help"]],
    ids=" ".join,
)  # fmt: skip
def test_help_and_usage_errors_do_not_import_large_libraries(arguments: list[str]) -> None:
    # pydicom imports requests if it is installed.
    large = {"torch", "pynetdicom", "distributed"}
    program = (
        "import sys\n"
        f"sys.argv = ['cxrsr', *{arguments!r}]\n"
        "from cxrsr_cli.commands.app import main\n"
        "try:\n    main()\n"
        f"finally:\n    print('imported:', {large!r} & sys.modules.keys(), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    *said, imported = (done.stdout + done.stderr).splitlines()
    assert imported == "imported: set()"
    assert said
