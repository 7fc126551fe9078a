"""Several processes train the same network as one process, and end together."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from cxrsr_cli.errors import ConfigError
from cxrsr_cli.training.distributed import ProcessGroup
from tests.training.test_training_data import picture

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

RANK_1_FINDS_NO_IMAGE = """
import os, sys
from cxrsr_cli.commands.app import main
if os.environ["RANK"] == "1":
    sys.argv += ["--set", "data.train=EMPTY"]
main()
"""


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TORCHRUN, *map(str, arguments)], check=False, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for split, count in (("train", 3), ("val", 3)):
        for index in range(count):
            picture(tmp_path / split / f"{index}.png", 48 + 8 * index)
    path = tmp_path / "config.yaml"
    plain = {
        "name": "test",
        "architecture": {"scale": 2, "channels": 8, "groups": 1, "blocks": 1},
        "data": {
            "train": str(tmp_path / "train"),
            "val": str(tmp_path / "val"),
            "description": "made up",
        },
        "stages": [{"steps": 12, "batch_size": 4, "patch_size": 12}],
        "warmup_steps": 2,
        "agreement": "none",
        "degradation": {"noise": [0.0, 0.05], "depth": [8, 16], "salt_pepper": [0.005, 0.02]},
        "val_every": 6,
        "checkpoint_every": 6,
    }
    path.write_text(yaml.safe_dump(plain))
    return path


@pytest.mark.peer
def test_two_processes_train_the_same_network_as_one(config: Path, tmp_path: Path) -> None:
    command = ["train", config, "--device", "cpu", "--run-dir"]
    two = run("-m", "cxrsr_cli", *command, tmp_path / "two")
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("weights: ") == 1, "only the first process prints"
    alone = [sys.executable, "-m", "cxrsr_cli", *map(str, command)]
    subprocess.run([*alone, str(tmp_path / "one")], check=True, capture_output=True)
    subprocess.run(
        [*alone, str(tmp_path / "other"), "--set", "seed=1"], check=True, capture_output=True
    )
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert {path.name for path in (tmp_path / "two").iterdir()} == names
    one, same, other = (
        load_file(tmp_path / folder / "test-x2.safetensors") for folder in ("one", "two", "other")
    )
    largest_difference = max((one[name] - same[name]).abs().max() for name in one)
    another_seed = max((one[name] - other[name]).abs().max() for name in one)
    assert largest_difference < 1e-5 < another_seed / 100
    logs = [
        [
            json.loads(line)
            for line in (tmp_path / folder / "metrics.jsonl").read_text().splitlines()
        ]
        for folder in ("one", "two")
    ]
    for line, twin in zip(*logs, strict=True):
        for name in ("loss", "psnr", "psnr_skip"):
            assert line[name] == pytest.approx(twin[name], rel=1e-5), name


@pytest.mark.peer
def test_an_error_in_one_process_ends_all(config: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    script = tmp_path / "run.py"
    script.write_text(RANK_1_FINDS_NO_IMAGE.replace("EMPTY", str(tmp_path / "empty")))
    done = run(script, "train", config, "--run-dir", tmp_path / "run", "--device", "cpu")
    assert done.returncode != 0
    assert not list((tmp_path / "run").glob("*.safetensors"))


@pytest.mark.parametrize(("total", "count"), [(8, 1), (8, 2), (9, 3)])
def test_shares_are_equal_and_complete(total: int, count: int) -> None:
    shares = [list(range(total))[ProcessGroup(rank, count).shard(total)] for rank in range(count)]
    assert [index for share in shares for index in share] == list(range(total))
    assert {len(share) for share in shares} == {total // count}


def test_a_batch_that_cannot_be_shared_is_an_error() -> None:
    with pytest.raises(ConfigError, match="batch_size 8 is not a multiple of 3 processes"):
        ProcessGroup(0, 3).shard(8)


def test_alone_nothing_is_wrapped_or_summed() -> None:
    network = torch.nn.Conv2d(1, 1, 1)
    assert ProcessGroup().wrap(network) is network
    assert ProcessGroup().all_reduce_values([1.0, 2.0], torch.device("cpu")) == [1.0, 2.0]
