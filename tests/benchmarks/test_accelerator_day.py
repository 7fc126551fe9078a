"""The accelerator day is rehearsed on the CPU, and a kill in any stage leaves usable results."""

import json
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pydicom
import pytest
import torch
import yaml
from safetensors.torch import load_file
from skimage.io import imsave

from benchmarks.accelerator_day import __main__ as command
from benchmarks.accelerator_day import bundle as bundles
from benchmarks.accelerator_day.check import check
from benchmarks.accelerator_day.crops import encode_crop, find_crops
from benchmarks.accelerator_day.results import LOG_NAME, Record, Results
from benchmarks.accelerator_day.speed import (
    MINIATURE,
    measure_speed,
    moved_bytes,
    report,
    run_network,
)
from benchmarks.accelerator_day.train import (
    DEFAULT,
    Measurement,
    Training,
    data_overrides,
    plan_overrides,
    train_all,
)
from cxrsr_cli.common.files import sha256_file
from cxrsr_cli.errors import ConfigError, InputError
from cxrsr_cli.images.image_files import GrayscaleImage, read_images
from cxrsr_cli.inference.predictor import Predictor
from cxrsr_cli.networks.model_files import find_model, read_metadata
from cxrsr_cli.training.config import load_train_config
from tests.conftest import EXAMPLE, ROOT
from tests.helpers.waiting import wait_until

SIDE = 48
WHEEL = "cxrsr_day_probe-1.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write parts of a radiograph as images of five patients, and a tiny configuration."""
    folder = tmp_path_factory.mktemp("data")
    values = pydicom.dcmread(EXAMPLE).pixel_array
    for number, split in enumerate(["train"] * 4 + ["val"]):
        (folder / split).mkdir(exist_ok=True)
        part = (values[number * 30 : number * 30 + 128, 64:192] >> 4).astype(np.uint8)
        imsave(folder / split / f"{number}_secret.png", part, check_contrast=False)
    path = folder / "tiny.yaml"
    plain = {
        "name": "tiny",
        "architecture": {"scale": 2, "channels": 4, "groups": 1, "blocks": 1},
        "data": {split: str(folder / split) for split in ("train", "val")}
        | {"description": "made up", "patient_id_regex": r"^\d+"},
        "stages": [
            {"steps": 3, "batch_size": 2, "patch_size": 12},
            {"steps": 1, "batch_size": 2, "patch_size": 16},
        ],
    }
    path.write_text(yaml.safe_dump(plain))
    return path


@pytest.fixture(scope="module")
def bundle(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pack the images, and a wheel that no machine has."""
    folder = tmp_path_factory.mktemp("bundle")
    bundles.pack(folder, config, (), None, max_bytes=64 << 20, side=SIDE)
    with zipfile.ZipFile(folder / "wheels" / WHEEL, "w") as wheel:
        wheel.writestr("cxrsr_day_probe.py", "VALUE = 1\n")
        info = "cxrsr_day_probe-1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: cxrsr-day-probe\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    contents = json.loads((folder / "contents.json").read_text())
    contents[f"wheels/{WHEEL}"] = sha256_file(folder / "wheels" / WHEEL)
    (folder / "contents.json").write_text(json.dumps(contents))
    return folder


@pytest.fixture(autouse=True)
def restores_the_choice_of_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a training chooses for its process."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)


def later(seconds: float = 300) -> float:
    return time.monotonic() + seconds


def start(stage: str, results: Path, bundle: Path, *more: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.accelerator_day", stage, "--device", "cpu"]
    command += ["--miniature", "--results", str(results), "--bundle", str(bundle)]
    environment = bundles.child_environment(bundle) | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, *map(str, more)], env=environment, cwd=ROOT)


def kill_when(process: subprocess.Popen[bytes], is_true: Callable[[], object], what: str) -> None:
    """Kill a stage in the middle of its work."""
    wait_until(lambda: is_true() or process.poll() is not None, what)
    assert process.poll() is None, "it is still at work"
    process.kill()
    process.wait()


@pytest.mark.process
def test_all_that_travels_is_within_the_limit(config: Path, tmp_path: Path) -> None:
    checkout = bundles.checkout_bytes()
    assert 1 << 20 < checkout < 32 << 20
    limit = checkout + (256 << 10) + 30_000
    sizes = bundles.pack(tmp_path, config, (), None, max_bytes=limit, side=SIDE)
    assert sizes["checkout"] + sizes["wheels"] + sizes["shard"] <= limit
    assert sizes["shard"] > 10_000
    for made in (bundles.site_folder(tmp_path), bundles.data_folder(tmp_path)):
        made.mkdir()
    more = bundles.pack(tmp_path, config, (), None, max_bytes=limit + 15_000, side=SIDE)
    assert more["crops"] > sizes["crops"]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"contents.json", "data.tar", "wheels"}, "an earlier setup does not travel"
    with pytest.raises(ConfigError, match="checkout and wheels take"):
        bundles.pack(tmp_path, config, (), None, max_bytes=checkout, side=SIDE)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"other files: notes\.txt"):
        bundles.pack(tmp_path, config, (), None, max_bytes=limit, side=SIDE)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize(("bits", "minimum"), [(8, 0), (10, 0), (12, -1000), (16, 0)])
def test_a_crop_keeps_values_depth_and_polarity(
    bits: int, minimum: int, inverted: bool, tmp_path: Path
) -> None:
    random = np.random.default_rng(bits)
    values = random.integers(0, 1 << bits, (64, 80)) + minimum
    tensor = torch.from_numpy(values.astype(np.float32))[None, None]
    image = GrayscaleImage("secret", tensor, minimum + 2**bits - 1.0, float(minimum), inverted)
    path = tmp_path / "crop.dcm"
    path.write_bytes(encode_crop(image, 8, 16, 32, "patient"))
    (found,) = read_images(path, 2)
    assert torch.equal(found.values, tensor[..., 8:40, 16:48] - minimum)
    assert (found.minimum, found.maximum, found.inverted) == (0, 2**bits - 1, inverted)
    assert b"secret" not in path.read_bytes()


def test_crops_show_contrast_and_no_marks_and_do_not_overlap() -> None:
    """One quarter has texture, one is flat, one is white, one has a letter."""
    values = torch.full((1, 1, 256, 256), 100.0)
    texture = torch.rand(32, 32, generator=torch.Generator().manual_seed(0))
    values[0, 0, :128, :128] += 20 * texture.repeat_interleave(4, 0).repeat_interleave(4, 1)
    values[0, 0, :128, 128:] = 255
    values[0, 0, 180:200, 180:188] = 255
    image = GrayscaleImage("made up", values, 255.0)
    found = find_crops(image, 128)
    assert found[0][1:] == (0, 0)
    assert found[0][0] > 5 * found[1][0]
    covered = torch.zeros(256, 256)
    for _, top, left in found:
        covered[top : top + 128, left : left + 128] += 1
    assert len(found) > 1
    assert covered.sum() == len(found) * 128**2, "all are inside of the image"
    assert covered.max() == 1
    assert find_crops(image, 300) == []


def test_the_shard_has_crops_of_every_patient_and_no_name(bundle: Path, tmp_path: Path) -> None:
    assert b"secret" not in (bundle / bundles.SHARD_NAME).read_bytes()
    with tarfile.open(bundle / bundles.SHARD_NAME) as archive:
        archive.extractall(tmp_path, filter="data")
    for split, count in (("train", 4), ("val", 1)):
        files = [pydicom.dcmread(path) for path in (tmp_path / split).rglob("*.dcm")]
        patients = {str(file.PatientID) for file in files}
        assert len(patients) == count
        assert all(len(patient) == 16 for patient in patients)


def test_packages_that_the_machine_has_do_not_travel() -> None:
    every = {line.partition("==")[0] for line in bundles.needed_packages(bundles.Machine())}
    assert {"pydicom", "highdicom", "typer", "pytest", "pydantic-core"} <= every
    assert "torch" not in every
    few = bundles.needed_packages(bundles.Machine(present=frozenset(every - {"pydicom"})))
    assert [line.partition("==")[0] for line in few] == ["pydicom"]


@pytest.mark.slow
@pytest.mark.process
def test_setup_is_complete_after_a_kill(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Results(tmp_path)
    with start("setup", tmp_path, bundle) as process:
        kill_when(process, lambda: results.records("setup"), "the first step of the setup")
    assert results.records("setup", step="imports") == []
    earlier = bundles.data_folder(bundle) / "train" / "earlier.dcm"
    earlier.parent.mkdir(parents=True, exist_ok=True)
    earlier.touch()
    monkeypatch.setattr(bundles, "_IMPORTS", 'print("what a library says")' + bundles._IMPORTS)
    assert bundles.setup(results, bundle, "cpu")
    assert not earlier.exists()
    last = results.records("setup")[-1]
    assert last["torch"] == torch.__version__
    assert (bundles.site_folder(bundle) / "cxrsr_day_probe.py").exists()
    assert len(list((bundles.data_folder(bundle) / "val").rglob("*.dcm"))) > 0
    damaged = bundle / "wheels" / WHEEL
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"missing or damaged: wheels/.*copy it again"):
        bundles.setup(results, bundle, "cpu")
    damaged.write_bytes(content)
    with pytest.raises(InputError, match="not filled by `pack`"):
        bundles.setup(results, tmp_path, "cpu")


@pytest.mark.slow
@pytest.mark.process
def test_the_check_records_each_test_also_before_a_kill(bundle: Path, tmp_path: Path) -> None:
    results = Results(tmp_path / "killed")
    tests = "float32 and cpu or strips_and_tiles"
    with start("check", results.folder, bundle, "--tests", tests) as process:
        kill_when(process, lambda: results.records("check"), "the first test of the check")
    (first, *_) = results.records("check")
    assert first["outcome"] == "passed"
    assert "test_accelerator.py::test_float32_equals_that_of_a_cpu[cpu]" in first["test"]


def test_the_check_passes_and_reports_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Results(tmp_path / "results")
    assert check(results, "cpu", later(), "the_program_runs")
    assert not check(results, "cpu", later(), "no such test")
    assert not check(results, "cpu", time.monotonic() - 1, "the_program_runs")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_accelerator.py").write_text("def test_bad():\n    assert 1 == 2\n")
    monkeypatch.setattr("benchmarks.accelerator_day.check.ROOT", tmp_path)
    assert not check(results, "cpu", later())
    *_, failed, last = results.records("check")
    assert failed["outcome"] == "failed"
    assert "assert 1 == 2" in failed["text"]
    assert last["failed"] == 1


@pytest.mark.slow
def test_the_speed_is_measured_and_the_goals_are_judged(tmp_path: Path) -> None:
    results = Results(tmp_path)
    assert measure_speed(results, "cpu", later(), MINIATURE)
    records = results.records("speed")
    assert [each for each in records if each["what"] in ("failed", "left out")] == []
    text = report(records)
    assert "TFLOP/s" in text
    assert "TB/s" in text
    networks = [each for each in records if each["what"] == "network"]
    assert {each["scale"] for each in networks} == {2, 4, 8}
    goal = networks[0]
    ratio = median(goal["seconds"]) / goal["bare_seconds"]
    assert f"{ratio:.2f} times the convolutions of 1.2" in text
    slow = {**goal, "seconds": [2.0], "bare_seconds": 1.8}
    text = report([slow, {**goal, "arithmetic": "bf16", "seconds": [0.5], "bare_seconds": 0.3}])
    assert " 2.000 s of 1 s, missed; 1.11 times the convolutions of 1.2, met." in text
    assert " 0.500 s of 1 s, met; 1.67 times the convolutions of 1.2, missed." in text
    assert {each["model"] for each in records if each["what"] == "rival"} == {"srcnn", "rir-16"}
    (first, _) = [each for each in records if each["what"] == "end to end"]
    parts = [first[name] for name in ("read", "network", "assembly", "rest", "write")]
    assert first["total"] == pytest.approx(sum(parts))
    assert 0 < first["read_back"] < first["write"]


@pytest.mark.slow
@pytest.mark.process
def test_measurements_before_a_kill_are_reported(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results(tmp_path)
    with start("speed", tmp_path, bundle) as process:
        kill_when(process, lambda: results.records("speed", what="network"), "the first network")
    with (tmp_path / LOG_NAME).open("a") as log:
        log.write('{"stage": "speed", "what": "netw')  # as a kill while it writes would leave it
    results.add("speed", what="after the kill")
    assert results.records("speed")[-1] == {"stage": "speed", "what": "after the kill"}
    assert command.main(["collect", str(tmp_path)]) == 0
    assert "Goals, 40x48 x4, fp32" in capsys.readouterr().out


def test_a_failed_measurement_and_the_end_of_the_time_are_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Results(tmp_path)

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("too large")

    monkeypatch.setattr("benchmarks.accelerator_day.speed._Bench._peaks", fail)
    deadline = iter([0.0, 1.0, *[3.0] * 10])
    monkeypatch.setattr("benchmarks.accelerator_day.speed.time.monotonic", lambda: next(deadline))
    assert not measure_speed(results, "cpu", 2.0, MINIATURE)
    text = report(results.records("speed"))
    assert "failed: peaks: OutOfMemoryError: too large" in text
    assert "no time for: end to end x4" in text


def test_the_bytes_that_a_program_moves_are_those_of_its_convolutions_and_sums() -> None:
    predictor = Predictor.load(find_model("rir-s", 4).path, device="cpu")
    program = predictor.program
    assert program
    run_network(predictor, torch.rand(1, 1, 8, 8), 8, tf32=True)
    convolved = sum(
        4 * (branch.conv.weight.shape[0] + branch.conv.weight.shape[1])
        for layer in program.layers
        for branch in layer.branches
        if branch.conv
    )
    assert convolved < moved_bytes(program) < 3 * convolved


def test_the_images_of_the_shard_replace_one_or_several_sources(
    config: Path, tmp_path: Path
) -> None:
    for folder in ("train/0", "train/1", "val/0"):
        (tmp_path / folder).mkdir(parents=True)
    one = load_train_config(config)
    plain = ["data.patient_id_regex=null"]
    plain += [f'data.{split}="{tmp_path / split}"' for split in ("train", "val")]
    assert data_overrides(one, tmp_path) == plain
    both = replace(one.data, train=(Path("a"), Path("b")), val=(Path("a"),))
    assert data_overrides(replace(one, data=both), tmp_path) == [
        "data.patient_id_regex=null",
        f'data.train=["{tmp_path}/train/0", "{tmp_path}/train/1"]',
        f'data.val=["{tmp_path}/val/0"]',
    ]


def tiny(config: Path, *overrides: str) -> list[Training]:
    return [Training(config, overrides=overrides)]


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan few steps, whatever the speed of this machine is."""
    stages = "stages=[{steps: 8, batch_size: 2, patch_size: 12}]"
    plan = (stages, "val_every=4", "checkpoint_every=2", "warmup_steps=2")
    monkeypatch.setattr("benchmarks.accelerator_day.train.plan_overrides", lambda *_: plan)


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.usefixtures("few_steps")
def test_trainings_are_measured_planned_and_completed(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One that fails does not stop the next, and a profile that fails stops none."""
    results, trainings = (
        Results(tmp_path),
        [*tiny(config, "name=bad", "learning_rate=3e36", "agreement=none")],
    )
    trainings += tiny(config)
    monkeypatch.delattr("torch.profiler.profiler._KinetoProfile.key_averages")
    assert not train_all(results, results, trainings, None, "cpu", later(), steps_to_measure=1)
    (failed,) = results.records("train", event="failed")
    assert failed["name"] == "bad-x2"
    assert "not finite" in failed["error"]
    assert "key_averages" in results.records("train", event="profile")[-1]["error"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        LOG_NAME,
        "tiny-x2.safetensors.1-1of1",
    ]
    logged = [each for each in results.records("train", name="tiny-x2") if "psnr" in each]
    assert [each["step"] for each in logged] == [4, 8]
    assert command.main(["collect", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "tiny-x2: 2 patches of 12: " in text
    assert "tiny-x2: complete" in text
    weights = tmp_path / "out" / "tiny-x2.safetensors"
    metadata = read_metadata(weights)
    (plan,) = results.records("train", name="tiny-x2", event="plan")
    checked = load_train_config(config, plan["overrides"])
    assert metadata.config_sha256 == checked.sha256()
    assert metadata.steps == checked.total_steps
    assert str(tmp_path) not in metadata.command
    assert load_file(weights)
    count = len(results.records())
    assert train_all(results, results, tiny(config), None, "cpu", later())
    assert len(results.records()) == count, "complete trainings are not repeated"


@pytest.mark.slow
@pytest.mark.process
def test_a_killed_training_is_resumed_on_another_day(
    config: Path, bundle: Path, tmp_path: Path
) -> None:
    """With the images of the shard. Every checkpoint is in parts of a bounded size."""
    data = bundles.data_folder(bundle)
    with tarfile.open(bundle / bundles.SHARD_NAME) as archive:
        archive.extractall(data, filter="data")
    results = Results(tmp_path / "first", max_file_bytes=4000)
    more = ["--config", config, "--checkpoint-seconds", 0.2, "--max-file-size", 4000]
    more += ["--total-minutes", 10, "--max-files", 30]
    with start("train", results.folder, bundle, *more) as process:
        kill_when(process, lambda: len(published(results)) >= 2, "the second checkpoint")
    last = published(results)[-1]
    assert len(last["parts"]) > 2
    assert max(path.stat().st_size for path in results.folder.glob("*of*")) <= 4000
    again = Results(tmp_path / "second", max_file_bytes=4000, max_files=30)
    assert not train_all(
        again, results, tiny(config), data, "cpu", later(1.5), checkpoint_seconds=0.2
    ), "there are minutes left to train"
    (plan, same) = (each.records("train", event="plan")[-1] for each in (results, again))
    assert plan["overrides"] == same["overrides"]
    steps = [each["seen_at"] for each in published(again)]
    assert steps[0] >= last["seen_at"], "the first is the one that was brought along"
    assert again.records("train", event="time is over")
    assert again.restore("tiny-x2.checkpoint", tmp_path / "whole.pt")
    state = torch.load(tmp_path / "whole.pt", weights_only=True)
    assert state["step"] >= last["seen_at"] - 1


def published(results: Results) -> list[Record]:
    return results.records("train", file="tiny-x2.checkpoint")


def test_what_cannot_end_well_is_refused_before_any_time_is_used(
    config: Path, tmp_path: Path
) -> None:
    results = Results(tmp_path, max_file_bytes=1000)
    with pytest.raises(ConfigError, match=r"would be \d+ files, and 8 is the limit"):
        train_all(results, results, tiny(config), None, "cpu", later(1))
    with pytest.raises(ConfigError, match=r"there is no file nowhere\.safetensors"):
        train_all(
            results, results, tiny(config, "init_from=nowhere.safetensors"), None, "cpu", later(1)
        )
    assert not list(tmp_path.iterdir())


def test_a_file_needs_room_beside_its_earlier_version(tmp_path: Path) -> None:
    results = Results(tmp_path, max_file_bytes=10, max_files=6)
    results.check_room([20, 10])
    with pytest.raises(ConfigError, match="would be 7 files, and 6 is the limit"):
        results.check_room([30])


def test_the_default_trainings_are_valid_and_fit_into_the_results() -> None:
    configs = [load_train_config(ROOT / each.config, each.overrides) for each in DEFAULT]
    assert [(config.name, config.architecture.scale) for config in configs] == [
        ("rir", 4),
        ("rir-s", 4),
    ]
    sizes = [16 * config.architecture.complexity.parameters for config in configs]
    results = Results(Path())
    results.check_room(sizes)
    assert sum(sizes) < results.max_files * results.max_file_bytes // 2


def test_the_steps_fit_into_the_time() -> None:
    config = load_train_config(ROOT / "models" / "rir-x4.yaml")
    measured = Measurement(at_hand=(0.03, 0.04), ahead=(0.04, 0.05), validation=3.0, workers=8)
    planned = load_train_config(
        ROOT / "models" / "rir-x4.yaml", plan_overrides(config, 600, measured, 60)
    )
    one, other = planned.stages
    assert one.steps / other.steps == pytest.approx(3, rel=0.01)
    assert (one.patch_size, other.patch_size) == (48, 64)
    assert one.steps * 0.04 + other.steps * 0.05 + 5 * 3 == pytest.approx(0.92 * 600, abs=1)
    assert planned.val_every * 5 == pytest.approx(planned.total_steps, abs=5)
    assert planned.checkpoint_every == 60 / 0.05
    assert planned.warmup_steps == 500
    few = load_train_config(
        ROOT / "models" / "rir-x4.yaml", plan_overrides(config, -5, measured, 60)
    )
    assert few.total_steps == 20
    assert few.checkpoint_every == 5


def test_a_file_is_replaced_only_when_the_next_version_is_complete(tmp_path: Path) -> None:
    results = Results(tmp_path / "results", max_file_bytes=10)
    source, target = tmp_path / "source", tmp_path / "target"
    assert not results.restore("state", target)
    source.write_bytes(b"a" * 25)
    results.publish("train", "state", source)
    # A kill between the parts of the second version leaves some of them, without a record.
    (results.folder / "state.2-1of3").write_bytes(b"b" * 10)
    assert results.restore("state", target)
    assert target.read_bytes() == b"a" * 25
    source.write_bytes(b"c" * 31)
    results.publish("train", "state", source)
    assert len(list(results.folder.glob("state.*"))) == 4
    assert results.restore("state", target)
    assert target.read_bytes() == b"c" * 31
    next(results.folder.glob("state.*")).unlink()
    with pytest.raises(InputError, match="no complete version of state"):
        results.restore("state", target)


@pytest.mark.process
@pytest.mark.parametrize("failing", ["", "setup", "check"])
def test_a_day_runs_all_stages_in_their_time(
    failing: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A stage that fails does not stop the next ones, but nothing runs without the setup."""
    stub, log = tmp_path / "python", tmp_path / "log"
    stub.write_text(f'#!/bin/sh\necho "$@" >> {log}\ntest "$3" != "{failing}"\n')
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    # What makes the report may need the wheels too.
    site = bundles.site_folder(tmp_path).resolve()
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(os, "environ", {**os.environ})
    monkeypatch.setattr(command, "_report", lambda _: f"wheels: {str(site) in sys.path}")
    folder = tmp_path / "results"
    given = ["day", "--minutes", "12.5", "--device", "cpu", "--results", str(folder)]
    given += ["--bundle", str(tmp_path)]
    assert command.main([*given, "--set", "seed=3"]) == int(bool(failing))
    started = [line.split() for line in log.read_text().splitlines()]
    names = [words[2] for words in started]
    assert names == (["setup"] if failing == "setup" else ["setup", "check", "speed", "train"])
    minutes = [float(words[words.index("--minutes") + 1]) for words in started]
    assert minutes[:3] == [2, 2, 2][: len(names)]
    if failing != "setup":
        assert minutes[3] == pytest.approx(12, abs=0.1), "the stubs take no time"
        assert started[3][-2:] != ["--set", "seed=3"]
        assert "--set seed=3" in " ".join(started[3])
    codes = {each["ended"]: each["exit_code"] for each in Results(folder).records("day")}
    assert codes == {name: int(name == failing) for name in names}
    assert capsys.readouterr().out == ("" if failing == "setup" else "wheels: True\n")


@pytest.mark.process
def test_a_stage_that_hangs_ends_with_the_code_of_a_timeout() -> None:
    script = (
        "import time\nfrom benchmarks.accelerator_day import __main__ as day\n"
        "day._GRACE_SECONDS = 0.2\nday._run_stage = lambda *_: time.sleep(1000)\n"
        "day.main(['speed', '--minutes', '0'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == os.EX_TEMPFAIL
