"""Names of methods are parsed and printed."""

import pytest

from cxrsr_cli.errors import UsageError
from cxrsr_cli.evaluation.methods import DEFAULT, REFERENCE, Method, parse_methods


@pytest.mark.parametrize(
    ("text", "method", "label"),
    [
        ("bicubic", Method("bicubic"), "bicubic"),
        ("bicubic+consistent", REFERENCE, "bicubic+consistent"),
        ("model", Method("model"), "model"),
        (
            "bicubic+impulse-filter",
            Method("bicubic", impulse_filter=True),
            "bicubic+impulse-filter",
        ),
        (
            "rir-s+consistent+impulse-filter",
            Method("rir-s", impulse_filter=True, consistent=True),
            "rir-s+impulse-filter+consistent",
        ),
        (" rir-s+ensemble ", Method("rir-s", ensemble=True), "rir-s+ensemble"),
        (
            "rir-s+consistent+ensemble",
            Method("rir-s", ensemble=True, consistent=True),
            "rir-s+ensemble+consistent",
        ),
        (
            "runs/a+b/edsr-x{scale}.safetensors+consistent",
            Method("runs/a+b/edsr-x{scale}.safetensors", consistent=True),
            "edsr-x{scale}+consistent",
        ),
    ],
)
def test_names_are_parsed(text: str, method: Method, label: str) -> None:
    assert Method.parse(text) == method
    assert str(method) == label


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no method"),
        (",", "no method"),
        ("+consistent", "names no method"),
        ("bicubic+ensemble", "no \\+ensemble"),
        ("a/net.safetensors,b/net.safetensors", "both have the name 'net'"),
    ],
)
def test_illegal_names_are_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_methods(text)


def test_the_reference_is_added_if_it_is_missing() -> None:
    assert parse_methods(",".join(map(str, DEFAULT))) == DEFAULT
    assert parse_methods("model,model") == (REFERENCE, Method("model"))
    assert parse_methods("model", reference=Method("model")) == (Method("model"),)


@pytest.mark.parametrize(
    ("base", "found"),
    [
        ("model", "rir-s"),
        ("edsr", "edsr"),
        ("a/x{scale}.safetensors", "a/x8.safetensors"),
    ],
)
def test_scale_and_model_are_inserted(base: str, found: str) -> None:
    assert Method(base).resolve_model("rir-s", 8) == found
