"""Names of methods are parsed and printed."""

import pytest

from cxrsr_cli.errors import UsageError
from cxrsr_cli.evaluation.methods import Method, parse_methods
from cxrsr_cli.evaluation.protocol import PROTOCOLS, ProtocolName
from cxrsr_cli.networks.config import Agreement

BICUBIC = Method("bicubic")


@pytest.mark.parametrize(
    ("text", "method", "label"),
    [
        ("bicubic", BICUBIC, "bicubic"),
        ("bicubic+consistent", Method("bicubic", consistent=True), "bicubic+consistent"),
        ("bicubic+exact", Method("bicubic", agreement=Agreement.EXACT), "bicubic+exact"),
        ("model", Method("model"), "model"),
        ("model+none", Method("model", agreement=Agreement.NONE), "model+none"),
        ("model+noise", Method("model", agreement=Agreement.NOISE), "model+noise"),
        (
            "model+exact+noise-reduction-0.50",
            Method("model", noise_reduction=0.5, agreement=Agreement.EXACT),
            "model+noise-reduction-0.5+exact",
        ),
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
            "rir-s+exact+ensemble+noise-reduction-1",
            Method("rir-s", noise_reduction=1, ensemble=True, agreement=Agreement.EXACT),
            "rir-s+noise-reduction-1+ensemble+exact",
        ),
        (
            "runs/a+b/edsr-x{scale}.safetensors+none",
            Method("runs/a+b/edsr-x{scale}.safetensors", agreement=Agreement.NONE),
            "edsr-x{scale}+none",
        ),
    ],
)
def test_names_are_parsed(text: str, method: Method, label: str) -> None:
    assert Method.parse(text) == method
    assert str(method) == label
    assert Method.parse(label).noise_reduction == method.noise_reduction


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no method"),
        (",", "no method"),
        ("+exact", "names no method"),
        ("bicubic+ensemble", "no \\+ensemble"),
        ("bicubic+noise", "bicubic can have"),
        ("bicubic+noise-reduction-1", "bicubic can have"),
        ("model+exact+consistent", "exclude each other"),
        ("model+exact+none", "two values of agreement"),
        ("model+noise-reduction-0+noise-reduction-1", "two values of noise-reduction"),
        ("model+noise-reduction-1.5", "within 0 to 1"),
        ("model+noise-reduction-1.2.3", "has no number"),
        ("a/net.safetensors,b/net.safetensors", "both have the name 'net'"),
    ],
)
def test_illegal_names_are_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_methods(text, BICUBIC)


def test_the_reference_is_added_if_it_is_missing() -> None:
    assert parse_methods("model,model", BICUBIC) == (BICUBIC, Method("model"))
    assert parse_methods("model", reference=Method("model")) == (Method("model"),)


@pytest.mark.parametrize("name", ProtocolName)
def test_the_methods_of_a_protocol_contain_its_reference(name: ProtocolName) -> None:
    protocol = PROTOCOLS[name]
    methods = parse_methods(protocol.methods, Method.parse(protocol.reference))
    assert ",".join(map(str, methods)) == protocol.methods


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
