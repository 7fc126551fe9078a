"""Methods are named as the user writes them."""

import pytest

from cxrsr_cli.errors import UsageError
from cxrsr_cli.evaluation.methods import DEFAULT, REFERENCE, Method, parse_methods


@pytest.mark.parametrize(
    ("text", "method", "label"),
    [
        ("bicubic", Method("bicubic"), "bicubic"),
        ("bicubic+consistent", REFERENCE, "bicubic+consistent"),
        ("model", Method("model"), "model"),
        ("bicubic+filtered", Method("bicubic", filtered=True), "bicubic+filtered"),
        (
            "rir-s+consistent+filtered",
            Method("rir-s", filtered=True, consistent=True),
            "rir-s+filtered+consistent",
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
def test_parse(text: str, method: Method, label: str) -> None:
    assert Method.parse(text) == method
    assert str(method) == label


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no method"),
        (",", "no method"),
        ("+consistent", "names no method"),
        ("bicubic+ensemble", "no \\+ensemble"),
        ("a/net.safetensors,b/net.safetensors", "both be called 'net'"),
    ],
)
def test_refuses(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_methods(text)


def test_default_and_reference() -> None:
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
def test_locate(base: str, found: str) -> None:
    assert Method(base).resolve_model("rir-s", 8) == found
