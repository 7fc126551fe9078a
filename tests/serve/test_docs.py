"""docs/serve.md and examples/serve.yaml agree with the code."""

import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import pytest

from cxrsr_cli.common.backoff import RetryPolicy
from cxrsr_cli.common.byte_size import parse_byte_size
from cxrsr_cli.connections.tls import TlsConfig
from cxrsr_cli.errors import ExitCode
from cxrsr_cli.options import OptionInfo, UpscaleOptions
from cxrsr_cli.receive.config import AllowedPeer, ScpConfig, ScpLimits
from cxrsr_cli.receive.refusal import REJECTIONS, STATUSES
from cxrsr_cli.send.folder import Folder
from cxrsr_cli.send.store import CStoreDestination
from cxrsr_cli.send.stow import StowDestination
from cxrsr_cli.serve.config import _KINDS, HealthConfig, ServeConfig, load_serve_config
from cxrsr_cli.serve.events import EventKind
from cxrsr_cli.serve.monitoring import Metrics
from cxrsr_cli.serve.queue import ItemState, Queue, QueueView
from cxrsr_cli.serve.routing import _MAX_DESCRIPTION_LENGTH, RoutingRule, RuleCondition
from tests.conftest import ROOT, Command

PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "serve.yaml"


def section(heading: str, page: str = PAGE) -> str:
    """Return the text under a heading, up to the next heading."""
    found = re.search(rf"^##+ {heading}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def first_cells(text: str) -> list[str]:
    """Return the first cell of each table row, without the header."""
    return [
        cell.strip()
        for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
        for cell in (line.split("|")[1] for line in table.splitlines()[2:])
    ]


WHERE: dict[type, str] = {
    ServeConfig: "The configuration",
    TlsConfig: "The configuration",
    RetryPolicy: "The configuration",
    HealthConfig: "The configuration",
    ScpConfig: "Who may send",
    ScpLimits: "Who may send",
    AllowedPeer: "Who may send",
    RoutingRule: "Rules",
    RuleCondition: "Rules",
    UpscaleOptions: "Rules",
    CStoreDestination: "Destinations",
    StowDestination: "Destinations",
    Folder: "Destinations",
}
"""Everything that a configuration is made of, and the heading under which it is explained."""


@pytest.mark.parametrize("kind", WHERE, ids=lambda kind: kind.__name__)
def test_every_key_is_documented(kind: type) -> None:
    keys = {one.name for one in fields(kind)}
    if kind is UpscaleOptions:
        keys = {one.name for one in fields(kind) if OptionInfo.of(one).in_rules}
    text = section(WHERE[kind])
    assert {key for key in keys if not re.search(rf"`{key}[`:]", text)} == set()


@pytest.mark.parametrize(
    ("heading", "kinds"),
    [
        ("The configuration", (ServeConfig,)),
        ("Who may send", (ScpConfig, ScpLimits)),
        ("Rules", (RoutingRule, RuleCondition)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_unknown_key_is_documented(heading: str, kinds: tuple[type, ...]) -> None:
    keys = {one.name for kind in kinds for one in fields(kind)}
    stated = {
        name for cell in first_cells(section(heading)) for name in re.findall(r"`(\w+)`", cell)
    }
    assert stated - keys == set()


def test_every_kind_of_destination_is_documented() -> None:
    assert first_cells(section("Destinations")) == [f"`{kind}`" for kind in _KINDS]


DEFAULTS = [
    ("`retry`", RetryPolicy(), ("initial_delay", "max_delay", "max_attempts")),
    (
        "`history_retention_days`",
        ServeConfig(spool=Path("x"), destinations={}, rules=()),
        ("history_retention_days",),
    ),
    ("`ae_title`", ScpConfig(), ("ae_title",)),
    ("`address`, `port`", ScpConfig(), ("address", "port")),
    ("`max_associations`", ScpLimits(), ("max_associations",)),
    ("`idle_timeout`", ScpLimits(), ("idle_timeout",)),
    ("`instance_timeout`", ScpLimits(), ("instance_timeout",)),
    ("`association_timeout`", ScpLimits(), ("association_timeout",)),
]


@pytest.mark.parametrize(("cell", "made", "names"), DEFAULTS, ids=[row[0] for row in DEFAULTS])
def test_defaults_are_those_of_the_code(cell: str, made: object, names: tuple[str, ...]) -> None:
    page = section(WHERE[type(made)])
    (row,) = re.findall(rf"^\| {re.escape(cell)} \| ([^|]*) \|", page, re.MULTILINE)
    values = [getattr(made, name) for name in names]
    shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    assert [word for word in re.findall(r"[\w.]+", row) if word not in names] == shown


@pytest.mark.parametrize("key", ["max_instance_bytes", "min_free_bytes"])
def test_default_sizes_are_those_of_the_code(key: str) -> None:
    (cell,) = re.findall(rf"^\| `{key}` \| ([^|]*) \|", PAGE, re.MULTILINE)
    assert parse_byte_size(cell) == getattr(ScpLimits(), key)


def test_the_length_of_a_matched_description_is_documented() -> None:
    (cell,) = re.findall(r"^\| `description` \| ([^|]*) \|", section("Rules"), re.MULTILINE)
    assert re.findall(r"\d+", cell) == [str(_MAX_DESCRIPTION_LENGTH)]


def test_every_event_is_documented() -> None:
    stated = re.findall(r"`(\w+)`", " ".join(first_cells(section("The log"))))
    assert sorted(stated) == sorted([*(kind.value for kind in EventKind), "fatal"])


def test_every_state_is_documented() -> None:
    assert first_cells(section("Dead letters")) == [f"`{state.value}`" for state in ItemState]


def test_every_metric_is_documented(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    with closing(Queue(path)) as queue, closing(QueueView(path)) as view:
        queue.enqueue("made with the first instance")
        exported = re.findall(r"^# TYPE (\w+)", Metrics(view).text(), re.MULTILINE)
    cells = " ".join(first_cells(section("Health and metrics")))
    assert sorted(re.findall(r"`(\w+)", cells)) == sorted(exported)


def test_every_rejection_and_failure_status_is_documented() -> None:
    text = section("Who may send")
    for reason, rejection in REJECTIONS.items():
        numbers = f"{rejection.result}/{rejection.source}/{rejection.diagnostic}"
        assert numbers in text, reason
    for reason, status in STATUSES.items():
        assert f"0x{status:04X}" in text, reason


# Exit codes


def in_a_table(page: str) -> set[int]:
    (table,) = re.findall(r"^\| exit code \|.*\n\|.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    return {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}


def in_a_sentence(page: str) -> set[int]:
    (words,) = re.findall(r"^Exit codes of `queue`: ([^.]*)\.", page, re.MULTILINE)
    return {int(code) for code in re.findall(r"\d+", words)}


@pytest.mark.parametrize(
    ("commands", "page", "read"),
    [
        (["serve"], "serve.md", in_a_table),
        (["send"], "send.md", in_a_table),
        (["queue list", "queue retry", "queue purge"], "serve.md", in_a_sentence),
    ],
    ids=["serve", "send", "queue"],
)
def test_documented_exit_codes_equal_those_of_the_help(
    cxrsr: Command, commands: list[str], page: str, read: Callable[[str], set[int]]
) -> None:
    said: set[int] = set()
    for command in commands:
        text = re.sub(r"\s+", " ", cxrsr(*command.split(), "--help").stdout)
        (codes,) = re.findall(r"Exit codes: ([^.]*)\.", text)
        said |= {int(code) for code in re.findall(r"\d+", codes)}
    stated = read((ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert stated == said
    assert stated <= {int(code) for code in ExitCode}


# The example


def test_the_example_can_be_read() -> None:
    config = load_serve_config(EXAMPLE)
    assert [rule.name for rule in config.rules if not rule.ignore] == ["chests"]
    assert list(config.destinations) == ["archive"]


def test_the_commented_lines_of_the_example_are_valid(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    key = r"^( *)# ( *\w+:(?: [^ ]*)?)$"
    path = tmp_path / "serve.yaml"
    path.write_text(re.sub(key, r"\1\2", text, flags=re.MULTILINE), encoding="utf-8")
    config = load_serve_config(path)
    assert config.tls
    assert config.tls.ca_file
    made = {type(destination) for destination in config.destinations.values()}
    assert made == {CStoreDestination, StowDestination, Folder}
