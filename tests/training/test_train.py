"""Training improves a network, resumes exactly, and names errors in its configuration."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from skimage.io import imread, imsave

from cxrsr_cli.errors import ConfigError, ExitCode, InputError, NoInputError, TrainingError
from cxrsr_cli.images.image_files import list_image_files, read_images
from cxrsr_cli.networks.config import ImageSkip
from cxrsr_cli.networks.layers import WhiteningStem, build_network
from cxrsr_cli.networks.model_files import ModelFile, bundled_models, read_metadata, save_network
from cxrsr_cli.networks.resampling import downsample, upsample
from cxrsr_cli.training.config import Loss, Schedule, TrainConfig, load_train_config
from cxrsr_cli.training.patch_sampler import PatchSampler
from cxrsr_cli.training.train import TrainingObserver, train
from cxrsr_cli.training.trainer import CHECKPOINT_NAME, Checkpoint, learning_rate, training_loss
from cxrsr_cli.training.training_data import make_pair
from cxrsr_cli.training.training_log import METRICS_NAME, LogEntry
from cxrsr_cli.training.warm_start import WarmStartReport, warm_start
from tests.conftest import ROOT, Command, describe
from tests.helpers.architectures import LOCAL, small
from tests.helpers.interrupted_training import train_to_checkpoint

PLAIN = {
    "name": "test",
    "architecture": {"scale": 2, "channels": 8, "groups": 1, "blocks": 1},
    "data": {"train": "train", "val": "val", "description": "made up"},
    "stages": [
        {"steps": 6, "batch_size": 2, "patch_size": 12},
        {"steps": 2, "batch_size": 1, "patch_size": 16},
    ],
    "warmup_steps": 2,
    "val_every": 4,
    "checkpoint_every": 4,
}


class _Recorder(TrainingObserver):
    """Keeps the events that tests look at."""

    def __init__(self) -> None:
        self.entries = list[LogEntry]()
        self.warm_starts = list[WarmStartReport]()

    def on_log(self, entry: LogEntry) -> None:
        self.entries.append(entry)

    def on_warm_start(self, report: WarmStartReport) -> None:
        self.warm_starts.append(report)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write a small configuration and images of uniform squares."""
    random = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 1)):
        (tmp_path / split).mkdir()
        for index in range(count):
            blocks = random.integers(0, 255, (9, 8)).repeat(9, 0).repeat(9, 1)
            imsave(tmp_path / split / f"{index}.png", blocks.astype(np.uint8), check_contrast=False)
    path = tmp_path / "config.yaml"
    data = {split: str(tmp_path / split) for split in ("train", "val")}
    path.write_text(yaml.safe_dump(PLAIN | {"data": data | {"description": "made up"}}))
    return path


@pytest.mark.slow
def test_a_trained_network_exceeds_the_image_skip(config: Path, tmp_path: Path) -> None:
    checked = load_train_config(
        config,
        [
            "stages=[{steps: 300, batch_size: 8, patch_size: 24}]",
            "architecture.residual_scale=1",
            "learning_rate=0.003",
        ],
    )
    recorder = _Recorder()
    train(checked, tmp_path / "run", command="none", observer=recorder)
    last = recorder.entries[-1]
    assert last.psnr is not None
    assert last.psnr_skip is not None
    assert last.psnr > last.psnr_skip + 1


@pytest.mark.slow
def test_a_network_learns_to_remove_salt_and_pepper(config: Path, tmp_path: Path) -> None:
    """Measured on a validation image, whose target has no noise."""
    checked = load_train_config(
        config,
        [
            "stages=[{steps: 120, batch_size: 8, patch_size: 24}]",
            "ema_decay=0.98",
            "degradation.salt_pepper=[0.02, 0.02]",
            "agreement=none",
            "architecture.residual_scale=1",
            "learning_rate=0.003",
            "loss=mse",
        ],
    )
    recorder = _Recorder()
    train(checked, tmp_path / "run", command="none", observer=recorder)
    last = recorder.entries[-1]
    assert last.psnr is not None
    assert last.psnr_skip is not None
    assert last.psnr > last.psnr_skip + 0.5


@pytest.mark.parametrize(
    "extra",
    [
        [],
        ["agreement=exact", "loss=relative_l1"],
        ["architecture.noise_share=true", "degradation.noise=[0.01, 0.05]"],
        ["architecture.stem=plain"],
        ["architecture.attention=block", "architecture.reduction=2"],
        ["architecture={network: srcnn, scale: 2, channels: 4, mapped: 4}"],
        ["architecture={network: edsr, scale: 2, channels: 4, blocks: 1}"],
        ["architecture={network: rcan, scale: 2, channels: 4, groups: 1, blocks: 1, reduction: 2}"],
        [
            "degradation.depth=[8, 16]",
            "degradation.jpeg=[50, 90]",
            "degradation.kernels={bicubic: 1, blur: 1}",
        ],
        ["optimizer=adamw", "weight_decay=0.01", "loss=mse", "fft_loss_weight=0.01"],
    ],
    ids=str,
)
def test_resume_is_exact(config: Path, tmp_path: Path, extra: list[str]) -> None:
    checked = load_train_config(config, extra)
    whole = train(checked, tmp_path / "whole", command="none")
    train_to_checkpoint(checked, tmp_path / "parts")
    assert not list((tmp_path / "parts").glob("*.safetensors"))
    parts = train(checked, tmp_path / "parts", command="none", resume=True)
    one, other = load_file(whole), load_file(parts)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_the_log_has_each_step_once_after_an_interrupt(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the moment before a checkpoint is replaced, and of one while a line is written."""
    checked = load_train_config(config)
    train(checked, tmp_path / "whole", command="none")
    save, saved = Checkpoint.save, list[int]()

    def save_first(checkpoint: Checkpoint, folder: Path) -> None:
        if saved:
            raise KeyboardInterrupt
        saved.append(checkpoint.step)
        save(checkpoint, folder)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "save", save_first)
        with pytest.raises(KeyboardInterrupt):
            train(checked, tmp_path / "parts", command="none")
    with (tmp_path / "parts" / METRICS_NAME).open("a") as log:
        log.write('{"step": 9')
    train(checked, tmp_path / "parts", command="none", resume=True)
    steps, again = (
        [
            json.loads(line)["step"]
            for line in (tmp_path / run / METRICS_NAME).read_text().splitlines()
        ]
        for run in ("whole", "parts")
    )
    assert again == steps
    assert len(steps) > len(saved)


@pytest.mark.slow
def test_train_writes_weights_and_log_and_refuses_a_used_folder(
    cxrsr: Command, config: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = cxrsr("train", config, "--run-dir", run, "--device", "cpu", "--set", "seed=3")
    assert done.returncode == ExitCode.OK, done.stderr
    assert f"weights: {run / 'test-x2.safetensors'}" in done.stdout
    assert "validation" in done.stderr
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [4, 8]
    description = read_metadata(run / "test-x2.safetensors")
    assert description.steps == 8
    assert description.data == "made up"
    assert description.command.startswith("cxrsr train ")
    assert description.config_sha256 == load_train_config(config, ["seed=3"]).sha256()
    again = cxrsr("train", config, "--run-dir", run)
    assert again.returncode == ExitCode.USAGE
    assert "resume it or use another folder" in again.stderr
    other = cxrsr("train", config, "--run-dir", run, "--resume", "--set", "seed=4")
    assert other.returncode == ExitCode.USAGE
    assert "another configuration" in other.stderr


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("colour=red", "colour"),
        ("architecture.depth=3", "architecture.depth"),
        ("architecture.scale=3", "scale is 3"),
        ("architecture.image_skip=cubic", "architecture.image_skip"),
        ("stages=[{steps: 0, batch_size: 1, patch_size: 8}]", "at least 1"),
        ("learning_rate=fast", "learning_rate"),
        ("stages=[]", "at least one"),
        ("stages=[{steps: 1, batch_size: 1, patch_size: 4}]", "patch_size must be at least 5"),
        ("degradation.salt_pepper=[0.01, 0.02]", "agreement must be none"),
        ("ema_decay=3", "ema_decay"),
        ("val_every=0", "val_every"),
        ("name=a/b", "letters"),
        ("warmup_steps=-1", "warmup_steps must not be negative"),
        ("data.weights=[1, 2]", "weights must be above 0, one for each of train"),
        ("data.patient_id_regex='('", "patient_id_regex is not a regular expression"),
        ("data.allow=[hips]", "data.allow"),
        ("degradation.fog=1", "degradation.fog"),
        ("degradation.jpeg=[90, 50]", "jpeg must be ascending"),
        ("precision=fp16", "precision must be fp32 or bf16"),
        ("weight_decay=0.1", "needs optimizer: adamw"),
        ("fft_loss_weight=-1", "fft_loss_weight"),
        ("seed", "does not have the form"),
        ("name.first=x", "name has a single value"),
    ],
)
def test_configuration_errors_name_the_key(config: Path, override: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_train_config(config, [override])


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\x00"])
def test_files_that_are_not_a_configuration_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_train_config(path)
    with pytest.raises(ConfigError, match="cannot read"):
        load_train_config(tmp_path / "none.yaml")


def test_a_pipe_is_no_configuration(tmp_path: Path) -> None:
    """Reading it would wait for ever."""
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="not a regular file"):
        load_train_config(tmp_path / "pipe.yaml")


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", bytes(1000)], ids=len)
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CHECKPOINT_NAME).write_bytes(content)
    with pytest.raises(TrainingError, match="is damaged"):
        Checkpoint.load(tmp_path, "")


def test_the_hash_does_not_depend_on_the_paths_of_the_data(config: Path) -> None:
    here = load_train_config(config)
    there = load_train_config(config, ["data.train=elsewhere"])
    assert here.sha256() == there.sha256()
    assert here.sha256() != load_train_config(config, ["seed=1"]).sha256()


@pytest.mark.parametrize(
    ("change", "changes_hash"),
    [
        ("loss=l1", False),
        ("degradation={}", False),
        ("degradation.jpeg_probability=1", False),
        ("precision=fp32", False),
        (r"data.patient_id_regex='^(\d{8})_'", False),
        ("loss=mse", True),
        ("degradation.jpeg=[50, 90]", True),
        ("agreement=exact", True),
        ("precision=bf16", True),
        ("data.allow=[body-part]", True),
        ("architecture.channels=6", True),
    ],
)
def test_the_hash_depends_on_keys_that_are_not_default(
    config: Path, change: str, changes_hash: bool
) -> None:
    before, after = load_train_config(config), load_train_config(config, [change])
    assert (before.sha256() != after.sha256()) == changes_hash


@pytest.mark.parametrize("model", bundled_models(), ids=lambda model: model.name)
def test_shipped_weights_have_the_hash_of_their_configuration(model: ModelFile) -> None:
    config = load_train_config(model.path.with_suffix(".yaml"))
    assert model.metadata.config_sha256 == config.sha256()


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configurations_are_valid(path: Path) -> None:
    config = load_train_config(path)
    assert path.stem == f"{config.name}-x{config.architecture.scale}"


def test_the_learning_rate_rises_and_falls(config: Path) -> None:
    checked = load_train_config(config)
    rates = [learning_rate(checked, step) for step in range(checked.total_steps)]
    assert rates[0] == pytest.approx(checked.learning_rate / 2)
    assert max(rates) == rates[1]
    assert rates[-1] < 0.05 * rates[1]
    paper = load_train_config(
        config, ["schedule=step", "decay_steps=4", "decay_factor=0.1", "warmup_steps=0"]
    )
    assert paper.schedule is Schedule.STEP
    ratio = learning_rate(paper, 5) / learning_rate(paper, 3)
    assert ratio == pytest.approx(0.1)


def test_stages_follow_each_other(config: Path) -> None:
    checked: TrainConfig = load_train_config(config)
    assert [checked.stage_at(step).patch_size for step in (0, 5, 6, 7)] == [12, 12, 16, 16]


def test_low_and_high_patches_have_the_same_position_and_orientation(
    config: Path, tmp_path: Path
) -> None:
    image = read_images(list_image_files(tmp_path / "train")[0], 2)[0]
    sampler = PatchSampler(
        [make_pair(image, 2, ImageSkip.BICUBIC)], 2, torch.Generator().manual_seed(0)
    )
    batch = sampler.sample(16, 16)
    assert batch.skip is not None
    inner, deep = (..., slice(3, -3), slice(3, -3)), (..., slice(6, -6), slice(6, -6))
    assert (downsample(batch.high, 2) - batch.low)[inner].abs().max() < 0.05, (
        "another orientation differs by half the range"
    )
    assert torch.allclose(batch.skip[deep], upsample(batch.low, 2)[deep], atol=1e-5)


def test_warm_start_from_another_scale_copies_all_but_the_upsampler(
    config: Path, tmp_path: Path
) -> None:
    first = train(load_train_config(config), tmp_path / "first", command="none")
    options = [f"init_from={first}", "learning_rate=1e-12", "architecture.scale=4"]
    options.append("stages=[{steps: 2, batch_size: 1, patch_size: 12}]")
    recorder = _Recorder()
    second = train(
        load_train_config(config, options), tmp_path / "second", command="none", observer=recorder
    )
    one, other = load_file(first), load_file(second)
    (start,) = recorder.warm_starts
    assert set(start.reinitialised) == {name for name in other if name.startswith("tail.")}
    assert set(start.loaded) == other.keys() - set(start.reinitialised)
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in start.loaded)


def test_warm_start_fits_a_stem_that_the_weights_do_not_have(config: Path, tmp_path: Path) -> None:
    plain = ["architecture.stem=plain"]
    first = train(load_train_config(config, plain), tmp_path / "first", command="none")
    whitened = load_train_config(config, [f"init_from={first}"])
    weights = load_file(train(whitened, tmp_path / "second", command="none"))
    assert weights["stem.gains"].max() > 2, "all initial gains are 1"


def test_warm_start_copies_all_weights(config: Path, tmp_path: Path) -> None:
    """With a learning rate near zero, the result is equal to the initial weights."""
    first = train(load_train_config(config), tmp_path / "first", command="none")
    options = [f"init_from={first}", "learning_rate=1e-12"]
    second = train(load_train_config(config, options), tmp_path / "second", command="none")
    one, other = load_file(first), load_file(second)
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


@pytest.mark.parametrize("name", [*LOCAL, "rcan matched", "rir group attention"])
@pytest.mark.parametrize("widening", [2, 3])
def test_a_wider_network_starts_as_the_same_function(
    name: str, widening: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    narrow = small(name)
    path = tmp_path / "narrow.safetensors"
    one = build_network(narrow).double().eval()
    save_network(one, describe(narrow), path)
    wide = replace(narrow, channels=6 * widening)  # type: ignore[call-arg]
    other = build_network(wide).double().eval()
    if getattr(narrow, "branch_channels", None):
        with pytest.raises(ConfigError, match="another width"):
            warm_start(other, wide, path)
        return
    report = warm_start(other, wide, path)
    assert report.widening == widening
    assert not report.reinitialised
    image = torch.rand(2, 1, 20, 24, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(one(image), other(image), rtol=1e-4, atol=1e-6)
    # The readers weight the copies of a channel differently, so that training separates them.
    weight = next(
        tensor
        for key, tensor in other.state_dict().items()
        if tensor.ndim == 4 and tensor.shape[1] == 6 * widening
    )
    assert not torch.allclose(weight[:, :6], weight[:, 6:12])


@pytest.mark.parametrize(
    "options",
    [["architecture.channels=12"], ["architecture.channels=4"],
     ["architecture.channels=16", "architecture.blocks=2"]],
    ids=str,
)  # fmt: skip
def test_weights_of_a_network_that_cannot_be_widened_are_refused(
    config: Path, tmp_path: Path, options: list[str]
) -> None:
    first = train(load_train_config(config), tmp_path / "first", command="none")
    other = load_train_config(config, [f"init_from={first}", *options])
    with pytest.raises(ConfigError, match="another width"):
        train(other, tmp_path / "other", command="none")


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_result_does_not_depend_on_the_number_of_workers(
    config: Path, tmp_path: Path, workers: int
) -> None:
    checked = load_train_config(config, ["degradation.noise=[0.05, 0.05]"])
    one = load_file(train(checked, tmp_path / "one", command="none", workers=0))
    other = load_file(train(checked, tmp_path / "other", command="none", workers=workers))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_losses_have_the_values_of_their_formulas() -> None:
    torch.manual_seed(0)
    output, target = torch.rand(2, 2, 1, 8, 8)
    difference = output - target
    assert training_loss(
        output, target, Loss.L1, 0, bicubic=lambda: target
    ).item() == pytest.approx(difference.abs().mean().item())
    assert training_loss(
        output, target, Loss.MSE, 0, bicubic=lambda: target
    ).item() == pytest.approx(difference.square().mean().item())
    bicubic = torch.rand(2, 1, 8, 8)
    ratios = difference.abs().mean((1, 2, 3)) / (bicubic - target).abs().mean((1, 2, 3))
    relative = training_loss(output, target, Loss.RELATIVE_L1, 0, bicubic=lambda: bicubic).item()
    assert relative == pytest.approx(ratios.mean().item())
    ratios = difference.square().mean((1, 2, 3)) / (bicubic - target).square().mean((1, 2, 3))
    relative = training_loss(output, target, Loss.RELATIVE_MSE, 0, bicubic=lambda: bicubic).item()
    assert relative == pytest.approx(ratios.mean().item())
    waves = np.fft.rfft2(output.numpy()) - np.fft.rfft2(target.numpy())
    fourier = (np.abs(waves.real) + np.abs(waves.imag)).mean() / 2
    mixed = training_loss(output, target, Loss.L1, 0.05, bicubic=lambda: target).item()
    assert mixed == pytest.approx(difference.abs().mean().item() + 0.05 * fourier, rel=1e-5)


@pytest.mark.slow
def test_weight_decay_shrinks_weights(config: Path, tmp_path: Path) -> None:
    common = [
        "optimizer=adamw",
        "stages=[{steps: 30, batch_size: 1, patch_size: 12}]",
        "ema_decay=0",
    ]
    norms = []
    for decay in (0, 100):
        checked = load_train_config(config, [*common, f"weight_decay={decay}"])
        weights = load_file(train(checked, tmp_path / f"{decay}", command="none"))
        norms.append(weights["deep.weight"].norm())
    assert norms[1] < 0.5 * norms[0]


def test_bf16_changes_neither_a_cpu_nor_the_stem(config: Path, tmp_path: Path) -> None:
    runs = [
        load_file(
            train(load_train_config(config, [f"precision={name}"]), tmp_path / name, command="none")
        )
        for name in ("fp32", "bf16")
    ]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    stem, image = WhiteningStem(), torch.rand(1, 1, 8, 8)
    full = stem(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(stem(image), full)


def test_the_run_folder_contains_a_plot_of_the_log(config: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    train(load_train_config(config), tmp_path / "run", command="none")
    assert imread(tmp_path / "run" / "metrics.png").std() > 0


def test_the_log_is_written_for_tensorboard_if_it_is_installed(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = list[tuple[str, int]]()

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            written.append((Path(folder).name, purge_step))

        def add_scalar(self, name: str, _value: float, step: int) -> None:
            written.append((name, step))

        def flush(self) -> None:
            pass

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    train(load_train_config(config), tmp_path / "run", command="none")
    assert written[0] == ("run", 1)
    assert {("loss", 4), ("psnr", 8), ("learning_rate", 8)} <= set(written)


def test_a_loss_that_is_not_finite_is_an_error(config: Path, tmp_path: Path) -> None:
    checked = load_train_config(config, ["learning_rate=1e37", "warmup_steps=0"])
    with pytest.raises(TrainingError, match="loss is not finite"):
        train(checked, tmp_path / "run", command="none")
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_unusable_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="no image"):
        list_image_files(tmp_path)
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[0, 0, 0] = 1
    imsave(tmp_path / "colour.png", colour, check_contrast=False)
    imsave(tmp_path / "small.png", np.zeros((3, 9), np.uint8), check_contrast=False)
    (tmp_path / "broken.png").write_bytes(b"no image")
    for name, says in {"colour": "colour", "small": "smaller", "broken": "damaged"}.items():
        with pytest.raises(InputError, match=says):
            read_images(tmp_path / f"{name}.png", 4)
