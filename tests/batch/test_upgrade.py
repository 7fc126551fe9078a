"""Ledger and queue of an older version are upgraded; those of a newer one are refused."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from cxrsr_cli.batch.ledger import LEDGER_NAME, Ledger, OutputKey
from cxrsr_cli.common.sqlite_file import Schema, SqliteFile
from cxrsr_cli.errors import ExitCode, OutputError
from cxrsr_cli.serve.queue import ItemState, Queue, QueueView
from cxrsr_cli.serve.spool import Spool
from tests.conftest import EXAMPLE, Command

VERSION_1 = """
PRAGMA application_id = 1668838003;
PRAGMA user_version = 1;
CREATE TABLE outputs (
    target TEXT NOT NULL,
    source_sha256 TEXT NOT NULL,
    model_sha256 TEXT NOT NULL,
    options TEXT NOT NULL,
    output_sha256 TEXT NOT NULL,
    done INTEGER NOT NULL,
    changed TEXT NOT NULL,
    PRIMARY KEY (target, output_sha256)
) WITHOUT ROWID;
"""
"""The file with a ledger's table, as version 1 created it."""

VERSION_1_QUEUE = """
CREATE TABLE IF NOT EXISTS arrivals (
    key TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    calling_ae TEXT NOT NULL,
    called_ae TEXT NOT NULL,
    address TEXT NOT NULL,
    begun INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    due REAL NOT NULL,
    rule TEXT NOT NULL,
    reason TEXT NOT NULL,
    arrived REAL NOT NULL,
    changed REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS arrivals_by_state ON arrivals (state, arrived);
CREATE TABLE IF NOT EXISTS deliveries (
    key TEXT NOT NULL,
    destination TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    due REAL NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (key, destination)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deliveries_by_destination ON deliveries (destination, state, due);
"""
"""The queue's tables, as version 1 created them."""

ENTRIES = """
INSERT INTO arrivals VALUES
    ('a', 'received', 'PACS', 'CXRSR', '10.0.0.1', 3, 1, 0, '', 'no memory', 1.5, 2.5),
    ('b', 'sending', 'PACS', 'CXRSR', '10.0.0.1', 0, 0, 0, 'chests', '', 2.5, 3.5),
    ('c', 'dead', 'PACS', 'CXRSR', '10.0.0.1', 0, 0, 0, '', 'damaged', 3.5, 4.5);
INSERT INTO deliveries VALUES
    ('b', 'archive', 'waiting', 7, 0, 'busy'), ('b', 'web', 'sent', 1, 0, '');
"""
KEY = OutputKey("source", "model", "options")


def make_old(path: Path, *scripts: str) -> Path:
    """Create a file of version 1."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1 + "".join(scripts))
    return path


def make_newer(path: Path, schema: str) -> Path:
    """Create a file with tables of a version that does not exist yet."""
    Queue(path).state_of("")
    Ledger(path).delete([])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE schema_versions SET version = 99 WHERE name = ?", (schema,))
    return path


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def test_an_old_queue_keeps_its_entries_and_works(tmp_path: Path) -> None:
    path = make_old(tmp_path / "old", VERSION_1_QUEUE, ENTRIES)
    with closing(Queue(path)) as queue, closing(QueueView(path)) as view:
        (item,) = queue.due_items(9)
        assert (item.key, item.calling_ae, item.crash_count, item.attempts, item.reason) == (
            "a", "PACS", 3, 1, "no memory",
        )  # fmt: skip
        assert [one.key for one in view.items(ItemState.DEAD)] == ["c"]
        assert view.pending() == {"archive": 1}
        (delivery,) = queue.due_deliveries("archive", 9)
        assert delivery.attempts == 7
        assert queue.mark_sent(delivery) is ItemState.DONE
        queue.requeue("c")
        assert queue.state_of("c") is ItemState.RECEIVED
        queue.enqueue("d")
        assert len(queue.due_items(9)) == 3


@pytest.mark.parametrize("read_only", [False, True])
def test_an_old_ledger_keeps_its_entries(tmp_path: Path, read_only: bool) -> None:
    path = make_old(tmp_path / "old")
    target = tmp_path / "out.dcm"
    target.write_bytes(b"output")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO outputs VALUES ('out.dcm', 'source', 'model', 'options', ?, 1, 'then')",
            (sha256(b"output").hexdigest(),),
        )
    before = path.read_bytes()
    with closing(Ledger(path, read_only=read_only)) as ledger:
        entry = ledger.lookup(target)
        assert entry
        assert (entry.key, entry.done) == (KEY, True)
        assert (path.read_bytes() == before) == read_only
        if not read_only:
            ledger.delete([target])
            assert ledger.lookup(target) is None


def test_an_old_file_gets_the_tables_that_it_lacks(tmp_path: Path) -> None:
    path = make_old(tmp_path / "old")
    with closing(Queue(path)) as queue:
        queue.enqueue("a")
        assert queue.state_of("a") is ItemState.RECEIVED


def test_two_processes_may_upgrade_the_same_file(tmp_path: Path) -> None:
    path = make_old(tmp_path / "old", VERSION_1_QUEUE, ENTRIES)
    with closing(Queue(path)) as one, closing(Queue(path)) as other, closing(Ledger(path)) as third:
        assert one.state_of("b") is ItemState.SENDING
        third.delete([])
        assert other.state_of("b") is ItemState.SENDING


def test_an_interrupted_migration_leaves_the_old_tables(tmp_path: Path) -> None:
    first, second = "CREATE TABLE IF NOT EXISTS a (x)", "ALTER TABLE a RENAME TO b"
    path = tmp_path / "file"
    with (
        closing(SqliteFile(path, Schema("test", ((first,),)))) as file,
        file.connection() as opened,
    ):
        opened.execute("INSERT INTO a VALUES (1)")
        opened.commit()
    before = dump(path)
    broken = SqliteFile(
        path, Schema("test", ((first,), (second, "INSERT INTO missing VALUES (1)")))
    )
    with pytest.raises(OutputError, match="missing"), broken.connection():
        pass
    assert dump(path) == before
    with (
        closing(SqliteFile(path, Schema("test", ((first,), (second,))))) as file,
        file.connection() as opened,
    ):
        assert opened.execute("SELECT x FROM b").fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("schema", "use"),
    [
        ("queue", lambda path: Queue(path).state_of("a")),
        ("queue", lambda path: QueueView(path).counts()),
        ("ledger", lambda path: Ledger(path).delete([])),
        ("ledger", lambda path: Ledger(path, read_only=True).check()),
    ],
    ids=["queue", "queue view", "ledger", "read-only ledger"],
)
def test_newer_tables_are_refused(
    tmp_path: Path, schema: str, use: Callable[[Path], object]
) -> None:
    path = make_newer(tmp_path / "new", schema)
    before = path.read_bytes()
    with pytest.raises(
        OutputError, match=f"{path} was written by a newer .*{schema} has version 99"
    ):
        use(path)
    assert path.read_bytes() == before


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = make_newer(tmp_path / "new", "")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 3")
    with pytest.raises(OutputError, match="its file has version 3, and this cxrsr understands 2"):
        Queue(path).state_of("a")


@pytest.mark.process
@pytest.mark.parametrize("name", ["upscale", "serve", "queue"])
def test_every_command_refuses_a_newer_version_in_a_sentence(
    cxrsr: Command, tmp_path: Path, tiny_model: Path, name: str
) -> None:
    spool = Spool(tmp_path / "spool")
    spool.make()
    make_newer(spool.ledger, "queue")
    make_newer(tmp_path / LEDGER_NAME, "ledger")
    config = tmp_path / "serve.yaml"
    plain = {
        "spool": str(spool.root),
        "scp": {"port": 0},
        "device": "cpu",
        "destinations": {"share": {"kind": "folder", "path": str(tmp_path)}},
        "rules": [
            {
                "name": "all",
                "upscale": {"scale": 2, "model": str(tiny_model)},
                "send_to": ["share"],
            }
        ],
    }
    config.write_text(yaml.safe_dump(plain), encoding="utf-8")
    done = {
        "upscale": lambda: cxrsr("upscale", "-s", 2, "-m", tiny_model, EXAMPLE, tmp_path),
        "serve": lambda: cxrsr("serve", config),
        "queue": lambda: cxrsr("queue", "list", spool.root),
    }[name]()
    assert done.returncode == ExitCode.CANNOT_WRITE
    assert "was written by a newer version of cxrsr" in done.stderr
    assert "version 99" in done.stderr
