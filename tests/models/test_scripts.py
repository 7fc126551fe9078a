"""The scripts that pack training data and train the full-size models."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from skimage.io import imsave

from cxrsr_cli.errors import ExitCode, InputError, OutputError, UsageError
from cxrsr_cli.networks.model_files import read_metadata
from cxrsr_cli.training.config import TrainConfig, load_train_config
from cxrsr_cli.training.trainer import CHECKPOINT_NAME
from cxrsr_cli.training.training_log import METRICS_NAME
from models.pack_data import MIB, SUMS, pack, unpack
from models.train_models import (
    MIN_STEPS,
    TRAININGS,
    Speed,
    Training,
    plan_training,
    probe_stages,
    stages_override,
)
from tests.conftest import ROOT

LIMIT = 100_000


def make_images(folder: Path, **counts: int) -> Path:
    """Draw noise, which PNG does not compress; each image has another patient."""
    random = np.random.default_rng(0)
    patients = count()
    for split, images in counts.items():
        (folder / split).mkdir(parents=True)
        for _ in range(images):
            pixels = random.integers(0, 255, (128, 128), dtype=np.uint8)
            imsave(folder / split / f"{next(patients)}.png", pixels, check_contrast=False)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data"), train=12, val=3)


def script(name: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a script of `models`."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "models" / name), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_a_folder_is_packed_and_unpacked(images: Path, tmp_path: Path) -> None:
    long = images / "train" / ("long name " * 20 + "ä.txt")
    long.write_text("a name that needs a header of its own")
    paths = pack(images, tmp_path / "shards", LIMIT)
    assert len(paths) > 2
    assert all(LIMIT / 2 < path.stat().st_size <= LIMIT for path in paths[:-1])
    for _ in range(2):
        assert unpack(tmp_path / "shards", tmp_path / "back") == 16
        assert contents(tmp_path / "back") == contents(images)
    long.unlink()


def test_a_shard_can_have_exactly_the_largest_size(images: Path, tmp_path: Path) -> None:
    (whole,) = pack(images, tmp_path / "one", 100 * MIB)
    size = whole.stat().st_size
    assert len(pack(images, tmp_path / "same", size)) == 1
    assert len(pack(images, tmp_path / "less", size - 1)) == 2


def test_equal_files_give_equal_shards(images: Path, tmp_path: Path) -> None:
    pack(images, tmp_path / "one", LIMIT)
    copy = shutil.copytree(images, tmp_path / "copy", copy_function=shutil.copyfile)
    (copy / "val" / "12.png").chmod(0o600)
    for _ in range(2):
        pack(copy, tmp_path / "other", LIMIT)
        assert contents(tmp_path / "one") == contents(tmp_path / "other")


@pytest.mark.process
def test_damaged_and_missing_shards_are_refused_by_name(images: Path, tmp_path: Path) -> None:
    shards, back = tmp_path / "shards", tmp_path / "back"
    packing = script("pack_data.py", "pack", images, shards, "--shard-mib", LIMIT / MIB)
    out, err = packing.communicate()
    assert packing.returncode == 0, err
    assert f"{shards / 'shard-001.tar'}: 0.1 MiB" in out
    if program := shutil.which("sha256sum"):
        subprocess.run([program, "--check", SUMS], cwd=shards, check=True, capture_output=True)
    damaged = bytearray((shards / "shard-001.tar").read_bytes())
    damaged[5000] ^= 1
    (shards / "shard-001.tar").write_bytes(damaged)
    (shards / "shard-002.tar").unlink()
    unpacking = script("pack_data.py", "unpack", shards, back)
    _, err = unpacking.communicate()
    assert unpacking.returncode == 1
    assert "shard-001.tar" in err
    assert "shard-002.tar: missing or damaged" in err
    assert "shard-000.tar" not in err
    assert not back.exists()


def test_files_and_folders_that_cannot_be_packed_are_refused(images: Path, tmp_path: Path) -> None:
    data = make_images(tmp_path / "data", train=1)
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"0\.png: larger than a shard"):
        pack(data, out, 12_000)
    with pytest.raises(UsageError, match="is inside of"):
        pack(data, data / "shards", LIMIT)
    (data / "link").symlink_to(images)
    os.mkfifo(data / "pipe")
    with pytest.raises(InputError, match=r"link, .*pipe: neither"):
        pack(data, out, LIMIT)
    with pytest.raises(InputError, match="is not a folder"):
        pack(tmp_path / "none", out, LIMIT)
    assert not out.exists()
    pack(images, out, LIMIT)
    before = contents(out)
    with pytest.raises(OutputError, match=r"shard-001\.tar, .*not part of this packing"):
        pack(images / "val", out, LIMIT)
    assert contents(out) == before


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("../out.png", tarfile.REGTYPE, "outside the destination"),
        ("link", tarfile.SYMTYPE, "link: not a file"),
        ("device", tarfile.CHRTYPE, "device: not a file"),
    ],
)
def test_unpacking_writes_only_files_inside_of_the_folder(
    tmp_path: Path, name: str, kind: bytes, says: str
) -> None:
    """The hashes are correct, but `pack` did not write the shard."""
    shards = tmp_path / "shards"
    pack(make_images(tmp_path / "data", train=1), shards, LIMIT)
    with tarfile.open(shards / "shard-000.tar", "w") as archive:
        header = tarfile.TarInfo(name)
        header.type, header.linkname = kind, "/"
        archive.addfile(header, io.BytesIO())
    done = subprocess.run(
        ["sha256sum", "shard-000.tar"], cwd=shards, check=True, capture_output=True
    )
    (shards / SUMS).write_bytes(done.stdout)
    with pytest.raises(InputError, match=says):
        unpack(shards, tmp_path / "back")
    assert not contents(tmp_path / "back")
    (shards / SUMS).write_text("0" * 64 + "  ../shard-000.tar\n")
    with pytest.raises(InputError, match="not a list of SHA-256"):
        unpack(shards, tmp_path / "back")


def full_size(training: Training) -> TrainConfig:
    return load_train_config(ROOT / "models" / training.config, training.overrides)


def test_a_training_starts_from_a_network_of_the_same_size() -> None:
    assert sum(training.share for training in TRAININGS) == pytest.approx(1)
    configs = {training.name: full_size(training) for training in TRAININGS}
    for index, training in enumerate(TRAININGS):
        config = configs[training.name]
        assert training.name == f"{config.name}-x{config.architecture.scale}"
        if training.start:
            assert training.start in [other.name for other in TRAININGS[:index]]
            own, start = (
                asdict(each.architecture) | {"scale": 0, "impulse_filter": False}
                for each in (config, configs[training.start])
            )
            assert own == start
    assert {
        config.architecture.complexity.parameters > 2_600_000 for config in configs.values()
    } == {True}


def test_the_speed_is_computed_from_the_log_of_a_short_training() -> None:
    config = full_size(TRAININGS[1])
    assert probe_stages(config.stages) == (
        "stages=[{batch_size: 16, patch_size: 48, steps: 200}, "
        "{batch_size: 16, patch_size: 64, steps: 300}]"
    )
    log = [(100, 30.0), (200, 34.0), (300, 44.0), (400, 49.0), (500, 57.0)]
    speed = Speed.of([{"step": step, "seconds": seconds} for step, seconds in log], 77)
    assert speed == Speed(rates=(25, 20), startup=20, pause=3, measuring=77)


def test_the_number_of_steps_fits_into_the_time() -> None:
    config = full_size(TRAININGS[1])
    speed = Speed(rates=(25, 20), startup=20, pause=3, measuring=77)
    plan = plan_training(config, 600, speed)
    checked = load_train_config(ROOT / "models" / "rir-x4.yaml", plan.overrides)
    one, other = checked.stages
    assert checked.total_steps == plan.steps
    assert one.steps / other.steps == pytest.approx(3, rel=0.01)
    assert (one.patch_size, other.patch_size) == (48, 64)
    assert one.steps / 25 + other.steps / 20 + 5 * 3 == pytest.approx(0.95 * (600 - 97), abs=1)
    assert checked.val_every * 5 == pytest.approx(plan.steps, abs=5)
    assert checked.checkpoint_every == 15 * 20
    assert checked.warmup_steps == 500
    assert (
        replace(checked, stages=config.stages, val_every=config.val_every, checkpoint_every=1000)
        == config
    )
    few = load_train_config(
        ROOT / "models" / "rir-x4.yaml", plan_training(config, 97, speed).overrides
    )
    assert few.total_steps == MIN_STEPS
    assert few.warmup_steps == MIN_STEPS // 20
    assert stages_override(few.stages, [75, 25]) in plan_training(config, 97, speed).overrides


TINY = [
    "architecture.channels=4", "architecture.groups=1", "architecture.blocks=1",
    "stages=[{steps: 3, batch_size: 2, patch_size: 12}]", "checkpoint_every=5",
]  # fmt: skip


def train_models(run: Path, data: Path, *more: object, only: str) -> subprocess.Popen[str]:
    overrides = [part for each in TINY for part in ("--set", each)]
    places = ["--data", data, "--run-dir", run, "--only", *only.split()]
    short = ["--minutes", 0.01, "--device", "cpu", "--threads", 1]
    return script("train_models.py", *places, *short, *overrides, *more)


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measure and train the first model, with a tiny network, in one call."""
    run = tmp_path_factory.mktemp("whole")
    process = train_models(run, images, only="rir-x2")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == "rir-x2: done"
    return run


@pytest.mark.slow
def test_the_plan_contains_steps_overrides_and_speed(whole: Path) -> None:
    plan = json.loads((whole / "plan.json").read_text())
    assert plan["minutes"] == 0.01
    assert plan["overrides"] == TINY
    assert list(plan["trainings"]) == ["rir-x2"]
    training = plan["trainings"]["rir-x2"]
    assert training["steps"] == MIN_STEPS
    assert training["speed"]["measuring"] > training["speed"]["startup"] > 0
    assert "precision=fp32" in training["overrides"]
    description = read_metadata(whole / "rir-x2" / "rir-x2.safetensors")
    assert description.steps == MIN_STEPS
    assert description.architecture["channels"] == 4
    assert str(whole) not in description.command


@pytest.mark.process
def test_an_interrupted_training_is_resumed(whole: Path, images: Path, tmp_path: Path) -> None:
    """In another folder with the same plan, it makes the same weights."""
    shutil.copyfile(whole / "plan.json", tmp_path / "plan.json")
    process = train_models(tmp_path, images, only="rir-x2")
    while not (tmp_path / "rir-x2" / CHECKPOINT_NAME).exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == ExitCode.INTERRUPTED
    assert not list(tmp_path.glob("*/*.safetensors"))
    process = train_models(tmp_path, images, only="rir-x2")
    _, err = process.communicate()
    assert process.returncode == 0, err
    one, other = (folder / "rir-x2" / "rir-x2.safetensors" for folder in (whole, tmp_path))
    assert "--resume" in read_metadata(other).command
    assert read_metadata(one).config_sha256 == read_metadata(other).config_sha256
    tensors, same = load_file(one), load_file(other)
    assert all(torch.equal(tensors[key], same[key]) for key in tensors)
    logs = (folder / "rir-x2" / METRICS_NAME for folder in (whole, tmp_path))
    lines, again = ([json.loads(line) for line in log.read_text().splitlines()] for log in logs)
    assert [line["step"] for line in lines] == [20, 40, 60, 80, 100]
    assert [line["psnr"] for line in lines] == [line["psnr"] for line in again]


@pytest.mark.process
def test_the_second_model_starts_from_the_first(whole: Path, images: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    plan = json.loads((run / "plan.json").read_text())
    plan["trainings"]["rir-x4"] = plan["trainings"]["rir-x2"]
    (run / "plan.json").write_text(json.dumps(plan))
    process = train_models(run, images, "--stop-after", 0, only="rir-x4")
    _, err = process.communicate()
    assert process.returncode == os.EX_TEMPFAIL, err
    assert "the time is over" in err
    process = train_models(run, images, only="rir-x4")
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert "warm start: " in err
    description = read_metadata(run / "rir-x4" / "rir-x4.safetensors")
    assert "init_from=rir-x2/rir-x2.safetensors" in description.command


@pytest.mark.process
def test_a_finished_training_is_not_repeated(whole: Path, images: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    process = train_models(whole, images, only="rir-x2")
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before
    process = train_models(whole, images, "--set", "seed=1", only="rir-x2")
    _, err = process.communicate()
    assert process.returncode == 1
    assert "use the same, or another run folder" in err


@pytest.mark.process
def test_a_failed_training_is_reported(images: Path, tmp_path: Path) -> None:
    process = train_models(tmp_path, images / "train", only="rir-x2 rir-x8")
    out, err = process.communicate()
    assert process.returncode == 1
    assert "train_models: rir-x2 failed: cxrsr train ended with" in err
    assert "train_models: rir-x8 failed: it starts from rir-x2, which is not trained" in err
    assert "rir-x8: failed" in out
