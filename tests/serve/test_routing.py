"""Rules match objects, and illegal configurations are refused."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from cxrsr_cli.common.quiet_libraries import quiet_libraries
from cxrsr_cli.dicom.acceptance import AcceptanceOverride
from cxrsr_cli.errors import ConfigError, MissingExtraError, UsageError
from cxrsr_cli.options import ImageTypeRule, UpscaleOptions
from cxrsr_cli.serve.config import check_environment, load_serve_config
from cxrsr_cli.serve.queue import ItemState, QueueItem
from cxrsr_cli.serve.routing import RoutingRule, RuleCondition, first_match
from tests.helpers.peers import certificates


def item(**changes: object) -> QueueItem:
    facts = {"calling_ae": "PACS", "called_ae": "CXRSR", "address": "127.0.0.1"}
    numbers = {"crash_count": 0, "attempts": 0, "due": 0.0, "arrived": 0.0}
    words = {"key": "k", "state": ItemState.RECEIVED, "rule": "", "reason": ""}
    return QueueItem(**{**facts, **numbers, **words, **changes})  # type: ignore[arg-type]


def chest(**changes: object) -> Dataset:
    dataset = Dataset()
    dataset.Modality, dataset.BodyPartExamined = "DX", "CHEST"
    dataset.SeriesDescription, dataset.StudyDescription = "Thorax pa", "Admission"
    dataset.Rows, dataset.Columns = 2000, 2128
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return dataset


WHENS = [
    ({}, True),
    ({"calling_ae": ("PACS",)}, True),
    ({"calling_ae": ("OTHER", "PACS")}, True),
    ({"calling_ae": ("OTHER",)}, False),
    ({"called_ae": ("CXRSR",)}, True),
    ({"called_ae": ("CXRSR4",)}, False),
    ({"modality": ("CR", "DX")}, True),
    ({"modality": ("CR",)}, False),
    ({"modality": ("cr", "dx")}, True),
    ({"body_part": ("CHEST",)}, True),
    ({"body_part": ("Chest",)}, True),
    ({"body_part": ("",)}, False),
    ({"description": "THORAX"}, True),
    ({"description": "^adm"}, True),
    ({"description": "lateral|ap$"}, False),
    ({"min_side": 2000}, True),
    ({"min_side": 2001}, False),
    ({"max_side": 2128}, True),
    ({"max_side": 2127}, False),
    ({"modality": ("DX",), "max_side": 100}, False),
]


@pytest.mark.parametrize(("when", "holds"), WHENS, ids=[str(when) for when, _ in WHENS])
def test_a_rule_matches_if_all_its_conditions_match(when: dict[str, Any], holds: bool) -> None:
    assert RuleCondition(**when).matches(item(), chest()) is holds


def test_a_missing_value_matches_only_the_empty_text() -> None:
    bare = Dataset()
    assert RuleCondition(modality=("",), body_part=("",)).matches(item(), bare)
    assert not RuleCondition(min_side=1).matches(item(), bare)
    assert not RuleCondition(max_side=511).matches(item(), bare)
    assert not RuleCondition(description=".").matches(item(), bare)


def test_terms_match_in_upper_and_lower_case() -> None:
    dataset = chest()
    dataset["BodyPartExamined"]._value = "chest "  # as some devices write it
    assert RuleCondition(body_part=("CHEST",)).matches(item(), dataset)


def raw(vr: str | None, value: bytes) -> Callable[[str], RawDataElement]:
    """Return a raw element by keyword; pydicom converts it on access."""
    return lambda keyword: RawDataElement(
        Tag(tag_for_keyword(keyword) or 0), vr, len(value), value, 0, vr is None, True
    )


ODD = [
    raw("US", b"\1"),
    raw("US", b"\1\0\2\0"),
    raw("US", b""),
    raw("SQ", b"no items"),
    raw("SQ", b""),
    raw("ZZ", b"no VR"),
    raw("UN", b"\xff\xfe"),
    raw("CS", b"\xff\xfe"),
    raw("IS", b"1.5"),
    raw("DS", b"many"),
    raw("AT", b"1"),
    raw("LO", b"Thorax\\pa"),
    raw("LO", b"x" * 1000),
    raw("CS", b"CR\\DX"),
    raw(None, b"\0"),
]
KEYWORDS = ["Modality", "BodyPartExamined", "SeriesDescription", "StudyDescription", "Rows"]
ALL_THAT_CAN_BE_ASKED: dict[str, Any] = {
    "modality": ("DX",),
    "body_part": ("CHEST",),
    "description": "thorax|admission",
    "min_side": 1,
    "max_side": 10_000,
}


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from([*KEYWORDS, "Columns"]), st.sampled_from(ODD), min_size=1))
def test_damaged_objects_are_matched_without_an_error(
    odd: dict[str, Callable[[str], RawDataElement]],
) -> None:
    dataset = chest()
    for keyword, element in odd.items():
        dataset._dict[Tag(keyword)] = element(keyword)
    for key, value in ALL_THAT_CAN_BE_ASKED.items():
        assert RuleCondition(**{key: value}).matches(item(), dataset) in (True, False)
    assert RuleCondition().matches(item(), dataset)


@pytest.mark.parametrize("value", [Sequence(), ["CR", "DX"], 7, object()], ids=type)
def test_a_modality_that_is_not_a_text_does_not_match(value: object) -> None:
    dataset = chest()
    dataset["Modality"]._value = value
    assert not RuleCondition(modality=("CR", "DX", "")).matches(item(), dataset)


@pytest.mark.parametrize("value", [[2000, 2000], "2000", None, 0, Sequence()], ids=repr)
def test_sides_that_are_not_numbers_do_not_match(value: object) -> None:
    """Otherwise a rule for small images would drop the object."""
    dataset = chest()
    dataset["Rows"]._value = value
    for when in (RuleCondition(min_side=1), RuleCondition(max_side=10_000)):
        assert not when.matches(item(), dataset)


def test_a_description_of_several_values_is_matched_as_one_text() -> None:
    dataset = chest()
    with quiet_libraries():
        dataset.SeriesDescription = ["Thorax", "lateral"]
    assert RuleCondition(description="thorax.*lateral").matches(item(), dataset)


def test_only_the_first_64_characters_of_a_description_are_matched() -> None:
    """Even a simple pattern takes hours on a long text that a peer could send."""
    long = "chest pa " * 11_111 + "xx"
    with quiet_libraries():
        dataset = chest(SeriesDescription=long, StudyDescription=["chest", long])
    handed: list[str] = []

    def search(pattern: str, text: str, flags: int) -> None:
        handed.append(text)

    with patch("cxrsr_cli.serve.routing.re.search", search):
        assert not RuleCondition(description=".*chest.*pa.*xx").matches(item(), dataset)
    assert handed == [long[:64], f"chest\\{long}"[:64]]


def test_the_first_rule_that_matches_is_applied() -> None:
    rules = [
        RoutingRule(name="cr", when=RuleCondition(modality=("CR",)), send_to=("a",)),
        RoutingRule(name="dx", when=RuleCondition(modality=("DX",)), ignore=True),
        RoutingRule(name="rest", send_to=("a",)),
    ]
    found = [first_match(rules, item(), chest(Modality=m)) for m in ("CR", "DX", "SC")]
    assert [rule and rule.name for rule in found] == ["cr", "dx", "rest"]
    assert first_match(rules[:1], item(), chest()) is None


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"name": "a"}, "either send_to or ignore"),
    ({"name": "a", "ignore": True, "send_to": ["x"]}, "either send_to or ignore"),
    ({"name": "a", "send_to": ["x"], "upscale": {"scale": 3}}, "scale: 3 is not one of 2, 4, 8"),
    ({"name": "a", "send_to": ["x"], "upscale": {"modl": "x"}}, "modl"),
    ({"name": "a", "send_to": ["x"], "when": {"description": "("}}, "not a regular expression"),
    (
        {"name": "a", "send_to": ["x"], "when": {"description": "a{99999999999}"}},
        "description is not a regular expression",
    ),
    (
        {"name": "a", "send_to": ["x"], "when": {"description": "(" * 5000 + ")" * 5000}},
        "description is not a regular expression .*recursion",
    ),
    ({"name": "a", "send_to": ["x"], "when": {"min_side": 0}}, "must be at least 1"),
    ({"name": "a", "send_to": ["x"], "when": {"max_side": -1}}, "max_side must be"),
    (
        {"name": "a", "send_to": ["x"], "when": {"min_side": 9, "max_side": 8}},
        "min_side is larger",
    ),
    ({"name": "a", "send_to": ["x"], "when": {"modalty": ["CR"]}}, "modalty"),
    (
        {"name": "a", "send_to": ["x"], "upscale": {"series_description": "Käse"}},
        "ASCII characters",
    ),
]


@pytest.mark.parametrize(("plain", "words"), FAULTS, ids=[words for _, words in FAULTS])
def test_an_illegal_rule_is_refused(plain: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(RoutingRule).validate_python(plain)


CONFIG: dict[str, Any] = {
    "spool": "spool",
    "scp": {"ae_title": "CXRSR", "port": 11112, "peers": [{"ae_title": "PACS"}]},
    "destinations": {
        "archive": {"kind": "store", "host": "pacs", "port": 104, "called_ae": "PACS"},
        "web": {"kind": "stow", "url": "https://pacs/dicom-web"},
        "share": {"kind": "folder", "path": "out"},
    },
    "rules": [{"name": "chests", "when": {"modality": ["CR", "DX"]}, "send_to": ["archive"]}],
    "memory": "2GiB",
    "health": {"port": 9100},
}


def written(folder: Path, **changes: object) -> Path:
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, **changes}), encoding="utf-8")
    return path


def test_a_complete_configuration_is_read(tmp_path: Path) -> None:
    config = load_serve_config(written(tmp_path))
    assert config.memory == 2 << 30
    assert config.rules[0].when.modality == ("CR", "DX")
    assert set(config.destinations) == {"archive", "web", "share"}


def test_the_policy_of_a_site_holds_for_every_rule_that_does_not_state_another(
    tmp_path: Path,
) -> None:
    policy = {"image_type_2": "source", "series_number": "source", "keep_private": False}
    rules = [
        {"name": "a", "send_to": "archive"},
        {"name": "b", "send_to": "archive", "upscale": {"scale": 2, "series_number": "unique"}},
        {"name": "c", "ignore": True},
    ]
    config = load_serve_config(written(tmp_path, policy=policy, rules=rules))
    first, second, ignored = (rule.upscale for rule in config.rules)
    assert first.image_type_2 is second.image_type_2 is ImageTypeRule.SOURCE
    assert (first.series_number, second.series_number) == ("source", "unique")
    assert (first.keep_private, second.keep_private, second.scale) == (False, False, 2)
    assert ignored == UpscaleOptions()


def test_a_text_alone_is_a_list_of_one(tmp_path: Path) -> None:
    keys = ("calling_ae", "called_ae", "modality", "body_part")
    rule = {
        "name": "a",
        "when": dict.fromkeys(keys, "X"),
        "upscale": {"allow": "modality"},
        "send_to": "archive",
    }
    (read,) = load_serve_config(written(tmp_path, rules=[rule])).rules
    assert [getattr(read.when, key) for key in keys] == [("X",)] * 4
    assert (read.upscale.allow, read.send_to) == (
        frozenset({AcceptanceOverride.MODALITY}),
        ("archive",),
    )


def test_sizes_may_have_units(tmp_path: Path) -> None:
    limits = {"max_instance_bytes": "512MiB", "min_free_bytes": "2G"}
    config = load_serve_config(written(tmp_path, scp={"limits": limits}))
    assert config.scp.limits.max_instance_bytes == 512 << 20
    assert config.scp.limits.min_free_bytes == 2 << 30


def place(kind: str, /, **changes: object) -> dict[str, Any]:
    """Return a destination with changed keys."""
    return {"destinations": {"a": {**PLACES[kind], **changes}}}


PLACES: dict[str, dict[str, Any]] = {
    "store": {"kind": "store", "host": "pacs", "port": 104, "called_ae": "PACS"},
    "stow": {"kind": "stow", "url": "https://pacs/dicom-web"},
    "folder": {"kind": "folder", "path": "out"},
}
INFINITE, NONE = float("inf"), float("nan")

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"spol": 1}, "spol: "),
    ({"memory": "much"}, "memory: .*'much' is not a size"),
    ({"health": {"port": 1, "address": "0.0.0.0"}}, "health.*not a loopback address"),  # noqa: S104
    ({"destinations": {"a": {"kind": "ftp"}}}, "destinations.a: .*one of store, stow, folder"),
    ({"destinations": {"a": {"kind": "store", "host": "x"}}}, "destinations.a.port: "),
    (
        {"destinations": {}},
        "sends to 'archive', which is not a destination; known destinations: none",
    ),
    ({"rules": [*CONFIG["rules"], *CONFIG["rules"]]}, "two rules are named 'chests'"),
    ({"rules": [{"name": "a"}]}, "rules.0: .*either send_to or ignore"),
    ({"retry": {"initial_delay": 0}}, "retry: .*0 < initial_delay"),
    ({"retry": {"initial_delay": INFINITE, "max_delay": INFINITE}}, "retry: .*0 < initial_delay"),
    ({"retry": {"initial_delay": NONE}}, "retry: .*0 < initial_delay"),
    ({"retry": {"max_delay": NONE}}, "retry: .*0 < initial_delay"),
    ({"retry": {"max_attempts": 0}}, "retry: .*attempts"),
    ({"retry": {"max_attempts": True}}, "retry.max_attempts: must be a number"),
    ({"health": {"port": 99999}}, "health: .*port must be from 0"),
    ({"health": {"port": -1}}, "health: .*port must be from 0"),
    ({"health": {"port": True}}, "health.port: must be a number"),
    ({"health": {"port": 1, "address": "::1"}}, "health: .*::1 is not IPv4"),
    ({"health": {"port": 1, "address": "localhost"}}, "health: "),
    ({"memory": -5}, "memory must be at least 1"),
    ({"memory": 0}, "memory must be at least 1"),
    ({"memory": True}, "memory: must be a number"),
    ({"history_retention_days": -1}, "history_retention_days must be finite"),
    ({"history_retention_days": NONE}, "history_retention_days must be finite"),
    ({"history_retention_days": INFINITE}, "history_retention_days must be finite"),
    ({"history_retention_days": False}, "history_retention_days: must be a number"),
    ({"spool": ""}, "spool: must be a path, and is empty"),
    ({"spool": "a\0b"}, "spool: contains an invalid character"),
    ({"spool": "\ud800"}, "spool: contains an invalid character"),
    ({"spool": None}, "spool: has no value"),
    ({"spool": ["a"]}, "spool: "),
    ({"a\0b": 1}, "the file: a key contains an invalid character"),
    ({"rules": []}, "rules: at least one"),
    ({"policy": None}, "policy: "),
    ({"policy": ["equipment"]}, "policy: "),
    ({"policy": {"equipmnt": "source"}}, "rules.0.upscale.*equipmnt: "),
    ({"policy": {"equipment": "mine"}}, "rules.0.upscale.*equipment: "),
    ({"policy": {"device": "cpu"}}, "rules.0.upscale: .*device cannot be set in a rule"),
    ({"rules": None}, "rules: has no value"),
    ({"scp": {"port": True}}, "scp.port: must be a number"),
    ({"scp": {"port": 70000}}, "scp: .*port must be from 0"),
    ({"scp": {"address": ""}}, "scp: .*address must be"),
    ({"scp": {"prt": 1}}, "scp.prt: "),
    ({"scp": {"peers": [{"ae_title": "PACS", "address": None}]}}, "peers.0.address: has no value"),
    ({"scp": {"peers": [{"ae_titel": "PACS"}]}}, "scp.peers.0.ae_titel: "),
    ({"scp": {"limits": {"max_associations": True}}}, "scp.limits.max_associations: must be"),
    (
        {"scp": {"limits": {"max_instance_bytes": "much"}}},
        "limits.max_instance_bytes: .*is not a size",
    ),
    ({"scp": {"limits": {"idle_timeout": 1e300}}}, "scp.limits: .*idle"),
    ({"scp": {"limits": {"idl": 1}}}, "scp.limits.idl: "),
    ({"tls": None}, "tls: has no value"),
    ({"tls": {}}, "tls needs a certificate"),
    ({"tls": {"ca_file": "a"}}, "tls needs a certificate"),
    ({"tls": {"certificate": "a", "ca_file": None}}, "tls.ca_file: has no value"),
    ({"tls": {"certificate": ""}}, "tls.certificate: must be a path, and is empty"),
    ({"tls": {"certificate": "a", "key": "\0"}}, "tls.key: contains an invalid character"),
    ({"destinations": {"a": None}}, "destinations.a: has no value"),
    ({"destinations": {"a": "out"}}, "destinations.a: .*needs a key 'kind'"),
    (place("folder", kind=["folder"]), "destinations.a: .*needs a key 'kind'"),
    (place("folder", kind={"folder": 1}), "destinations.a: .*needs a key 'kind'"),
    (place("folder", path=""), "destinations.a.path: must be a path, and is empty"),
    (place("folder", path="\0"), "destinations.a.path: contains an invalid character"),
    (place("store", tls=None), "destinations.a.tls: has no value"),
    (place("store", port=True), "destinations.a.port: must be a number"),
    (place("store", port=0), "destinations.a: .*port must be from 1"),
    (place("store", host="a\0b"), "destinations.a.host: contains an invalid character"),
    *(
        (place("store", host=host), "destinations.a: .*host must be")
        for host in ("", "a b", "a..b", ".", "x" * 70, "a\nb")
    ),
    *(
        (place("stow", url=url), "destinations.a: .*url is not a URL")
        for url in ("https://a b/", "https://a..b/", "https://a/b c", f"https://{'x' * 70}/")
    ),
    ({"scp": {"address": "a..b"}}, "scp: .*address must be"),
    *(
        (place(kind, **{key: value}), f"destinations.a: .*{key} must be above 0 and finite")
        for kind, key in (
            ("store", "timeout"),
            ("store", "commitment_timeout"),
            ("stow", "timeout"),
        )
        for value in (0, -1, NONE, INFINITE, 1e300)
    ),
]


@pytest.mark.parametrize(("changes", "words"), WRONG)
def test_an_error_names_its_key(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_serve_config(written(tmp_path, **changes))


UNREADABLE = [
    ("spool: a\nrules: []\nspool: b\n", "key 'spool' is given twice, also on line 3"),
    ("destinations:\n  web: {}\n  'web': {}\n", "key 'web' is given twice, also on line 3"),
    ("rules:\n- {name: a, name: b}\n", "key 'name' is given twice, also on line 2"),
    ("spool: 2026-99-99\n", "a value is invalid .*month"),
    ("spool: !!int many\n", "a value is invalid"),
    ("spool: !!timestamp soon\n", "a value is invalid"),
    ("spool: " + "[" * 2000 + "]" * 2000, "nested too deeply"),
    ("spool: !!python/name:os.system\n", "is not YAML"),
    ("? {a: b}\n: c\n", "is not YAML"),
    ("spool: [\n", "is not YAML"),
    ("- a\n", "is not a mapping"),
    ("", "is not a mapping"),
    ("1: 2\n", "spool: "),
    ("rules: &all\n- when: *all\n", "rules.0.when: "),
    ("history_retention_days: " + "9" * 400 + "\n", "history_retention_days"),
    ("history_retention_days: " + "9" * 5000 + "\n", "a value is invalid"),
]


@pytest.mark.parametrize(("text", "words"), UNREADABLE, ids=[words for _, words in UNREADABLE])
def test_a_file_that_is_not_a_configuration_is_refused(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        load_serve_config(path)


def test_a_merged_key_can_be_overridden(tmp_path: Path) -> None:
    """YAML merges keys for this purpose."""
    text = yaml.safe_dump(CONFIG).replace(
        "destinations:\n",
        "destinations:\n"
        "  first: &first {kind: store, host: a, port: 104, called_ae: A}\n"
        "  second: &second {<<: *first, host: b}\n"
        "  third: {<<: *second, port: 11112}\n",
    )
    path = tmp_path / "serve.yaml"
    path.write_text(text, encoding="utf-8")
    made = load_serve_config(path).destinations
    places = [(made[name].host, made[name].port) for name in ("second", "third")]  # type: ignore[attr-defined]
    assert places == [("b", 104), ("b", 11112)]


# The files that a configuration names


@pytest.mark.process
def test_valid_files_pass_the_check(tmp_path: Path) -> None:
    made = certificates(tmp_path)
    tls = {name: str(getattr(made.server, name)) for name in ("certificate", "key", "ca_file")}
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n", encoding="ascii")
    places = {
        "archive": {
            **PLACES["store"],
            "tls": tls,
            "storage_commitment": True,
            "commitment_port": 104,
        },
        "system": {**PLACES["store"], "tls": {}},
        "web": {**PLACES["stow"], "token_file": str(secret)},
        "other": {**PLACES["stow"], "username": "me", "password_file": str(secret)},
        "share": {"kind": "folder", "path": str(tmp_path)},
        "mount": {"kind": "folder", "path": str(tmp_path / "mount")},
    }
    config = load_serve_config(written(tmp_path, tls=tls, destinations=places))
    (amiss,) = check_environment(config)
    assert (
        amiss == f"destinations.mount: cannot find {tmp_path / 'mount'}: No such file or directory"
    )


FILES: list[tuple[dict[str, Any], str]] = [
    ({"tls": {"certificate": "none"}}, "tls: cannot read .*none"),
    ({"tls": {"certificate": "text"}}, "tls: .*text contains no certificate"),
    ({"tls": {"certificate": "."}}, "tls: cannot read"),
    (place("store", tls={"ca_file": "none"}), "destinations.a: cannot read .*none"),
    (place("store", tls={"ca_file": "damaged"}), "destinations.a: .*damaged certificate"),
    (
        place("store", tls={}, storage_commitment=True, commitment_port=104),
        "destinations.a: a TLS server needs a certificate",
    ),
    (place("stow", tls={"ca_file": "text"}), "destinations.a: .*contains no certificate"),
    (place("stow", token_file="none"), "destinations.a: cannot read .*none"),  # noqa: S106
    (place("stow", token_file="empty"), "destinations.a: .*is not a password or token"),  # noqa: S106
    (
        place("stow", username="me", password_file="none"),  # noqa: S106
        "destinations.a: cannot read .*none",
    ),
    (place("folder", path="text"), "destinations.a: .*is not a folder"),
]


@pytest.mark.parametrize(("changes", "words"), FILES, ids=[words for _, words in FILES])
def test_an_unusable_file_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    for name, text in (("text", "text"), ("empty", ""), ("damaged", pem)):
        (tmp_path / name).write_text(text, encoding="ascii")
    rules = [{"name": "all", "ignore": True}]
    config = load_serve_config(written(tmp_path, **{"rules": rules, "destinations": {}, **changes}))
    with pytest.raises(UsageError, match=words):
        check_environment(config)


def test_an_unreadable_secret_fails_the_check(tmp_path: Path) -> None:
    """Root can read every file, and may run the tests."""
    rules = [{"name": "all", "ignore": True}]
    changes = place("stow", token_file="token")  # noqa: S106
    config = load_serve_config(written(tmp_path, rules=rules, **changes))
    with (
        patch.object(Path, "read_text", side_effect=PermissionError(13, "Permission denied")),
        pytest.raises(UsageError, match=r"destinations.a: cannot read token: Permission denied"),
    ):
        check_environment(config)


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [
        ("store", "cxrsr_cli.send.pynetdicom_patches", "net"),
        ("stow", "cxrsr_cli.send.stow_client", "web"),
    ],
)
def test_a_missing_library_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    rules = [{"name": "all", "ignore": True}]
    config = load_serve_config(written(tmp_path, rules=rules, **place(kind)))
    with pytest.raises(MissingExtraError, match=re.escape(f"'cxrsr[{extra}]'")):
        check_environment(config)
