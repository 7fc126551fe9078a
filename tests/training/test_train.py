"""Training learns, resumes exactly, and says what is wrong with its configuration."""

import json
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
from cxrsr_cli.networks.layers import WhiteningStem
from cxrsr_cli.networks.model_files import read_metadata, save_network
from cxrsr_cli.networks.resampling import downsample
from cxrsr_cli.training.config import Loss, Schedule, TrainConfig, load_train_config
from cxrsr_cli.training.patch_sampler import PatchSampler
from cxrsr_cli.training.train import train
from cxrsr_cli.training.trainer import learning_rate, training_loss
from cxrsr_cli.training.training_log import LogEntry
from cxrsr_cli.training.training_pairs import make_pair
from cxrsr_cli.training.warm_start import WarmStartReport, warm_start
from tests.conftest import ROOT, Command, describe
from tests.helpers.architectures import LOCAL, small

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


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write a small configuration and smooth images with edges to learn from."""
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


def test_learns_more_than_the_image_skip(config: Path, tmp_path: Path) -> None:
    checked = load_train_config(
        config,
        [
            "stages=[{steps: 300, batch_size: 8, patch_size: 24}]",
            "architecture.residual_scale=1",
            "learning_rate=0.003",
        ],
    )
    lines: list[LogEntry] = []
    train(checked, tmp_path / "run", command="none", report=lines.append)
    last = lines[-1]
    assert last.psnr is not None
    assert last.psnr_skip is not None
    assert last.psnr > last.psnr_skip + 1


def test_learns_to_remove_salt_and_pepper(config: Path, tmp_path: Path) -> None:
    """On an image it has not seen, whose target is clean."""
    checked = load_train_config(
        config,
        [
            "stages=[{steps: 120, batch_size: 8, patch_size: 24}]",
            "ema_decay=0.98",
            "degradation.salt_pepper=[0.02, 0.02]",
            "architecture.image_skip=bicubic",
            "architecture.residual_scale=1",
            "learning_rate=0.003",
            "loss=mse",
        ],
    )
    lines: list[LogEntry] = []
    train(checked, tmp_path / "run", command="none", report=lines.append)
    last = lines[-1]
    assert last.psnr is not None
    assert last.psnr_skip is not None
    assert last.psnr > last.psnr_skip + 0.5


@pytest.mark.parametrize(
    "extra",
    [
        [],
        ["projection_steps=1"],
        ["preserved_noise=0.05"],
        ["architecture.stem=plain"],
        ["architecture.attention=block", "architecture.reduction=2"],
        ["architecture={network: srcnn, scale: 2, channels: 4, mapped: 4}"],
        ["architecture={network: edsr, scale: 2, channels: 4, blocks: 1}"],
        ["architecture={network: rcan, scale: 2, channels: 4, groups: 1, blocks: 1, reduction: 2}"],
        ["degradation.depth=[8, 16]", "degradation.jpeg=[50, 90]", "degradation.probability=0.5"],
        ["optimizer=adamw", "weight_decay=0.01", "loss=mse", "fft_loss_weight=0.01"],
    ],
    ids=str,
)
def test_resume_is_exact(config: Path, tmp_path: Path, extra: list[str]) -> None:
    checked = load_train_config(config, extra)
    whole = train(checked, tmp_path / "whole", command="none")

    class Stop(Exception):  # noqa: N818 - a signal, not an error
        pass

    def stop(_: object) -> None:
        raise Stop

    with pytest.raises(Stop):
        train(checked, tmp_path / "parts", command="none", report=stop)
    assert not list((tmp_path / "parts").glob("*.safetensors"))
    parts = train(checked, tmp_path / "parts", command="none", resume=True)
    one, other = load_file(whole), load_file(parts)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_command(cxrsr: Command, config: Path, tmp_path: Path) -> None:
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
    assert "resume it or name another" in again.stderr
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
        ("projection_steps=2", "no pixel is judged"),
        ("ema_decay=3", "ema_decay"),
        ("val_every=0", "val_every"),
        ("name=a/b", "letters"),
        ("preserved_noise=-1", "noise"),
        ("data.patient_id_regex='('", "patient_id_regex is no regular expression"),
        ("data.allow=[hips]", "data.allow"),
        ("degradation.fog=1", "degradation.fog"),
        ("degradation.jpeg=[90, 50]", "jpeg must rise"),
        ("precision=fp16", "precision must be fp32 or bf16"),
        ("weight_decay=0.1", "needs optimizer: adamw"),
        ("fft_loss_weight=-1", "fft_loss_weight"),
        ("seed", "not of the form"),
        ("name.first=x", "name holds a single value"),
    ],
)
def test_configuration_errors_name_the_key(config: Path, override: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_train_config(config, [override])


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\x00"])
def test_files_that_are_no_configuration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_train_config(path)
    with pytest.raises(ConfigError, match="cannot read"):
        load_train_config(tmp_path / "none.yaml")


def test_the_hash_is_of_what_decides_not_of_where(config: Path) -> None:
    here = load_train_config(config)
    there = load_train_config(config, ["data.train=elsewhere"])
    assert here.sha256() == there.sha256()
    assert here.sha256() != load_train_config(config, ["seed=1"]).sha256()


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ("loss=l1", False),
        ("degradation={}", False),
        ("degradation.probability=1", False),
        ("precision=fp32", False),
        (r"data.patient_id_regex='^(\d{8})_'", False),
        ("loss=mse", True),
        ("degradation.jpeg=[50, 90]", True),
        ("precision=bf16", True),
        ("data.allow=[body-part]", True),
        ("architecture.channels=6", True),
    ],
)
def test_a_newer_key_counts_where_it_changes_something(
    config: Path, change: str, counts: bool
) -> None:
    before, after = load_train_config(config), load_train_config(config, [change])
    assert (before.sha256() != after.sha256()) == counts


@pytest.mark.parametrize(
    "path", sorted((ROOT / "models").glob("*.safetensors")), ids=lambda p: p.stem
)
def test_shipped_weights_name_their_configuration(path: Path) -> None:
    config = load_train_config(path.with_suffix(".yaml"))
    assert read_metadata(path).config_sha256 == config.sha256()


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configurations_are_legal(path: Path) -> None:
    config = load_train_config(path)
    assert path.stem == f"{config.name}-x{config.architecture.scale}"


def test_learning_rate(config: Path) -> None:
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


def test_patches_belong_together(config: Path, tmp_path: Path) -> None:
    """Low and high patch show the same place, turned the same way."""
    image = read_images(list_image_files(tmp_path / "train")[0], 2)[0]
    sampler = PatchSampler(
        [make_pair(image, 2, ImageSkip.CONSISTENT)], 2, torch.Generator().manual_seed(0)
    )
    batch = sampler.sample(16, 16)
    assert batch.skip is not None
    inner = (..., slice(3, -3), slice(3, -3))
    for large in (batch.high, batch.skip):
        assert (downsample(large, 2) - batch.low)[inner].abs().max() < 0.05, (
            "another turn differs by half the range"
        )


def test_warm_start_from_another_scale_takes_all_but_the_tail(config: Path, tmp_path: Path) -> None:
    first = train(load_train_config(config), tmp_path / "first", command="none")
    options = [f"init_from={first}", "learning_rate=1e-12", "architecture.scale=4"]
    options.append("stages=[{steps: 2, batch_size: 1, patch_size: 12}]")
    taken = list[WarmStartReport]()
    second = train(
        load_train_config(config, options),
        tmp_path / "second",
        command="none",
        started_from=taken.append,
    )
    one, other = load_file(first), load_file(second)
    (start,) = taken
    assert set(start.reinitialised) == {name for name in other if name.startswith("tail.")}
    assert set(start.loaded) == other.keys() - set(start.reinitialised)
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in start.loaded)


def test_warm_start_with_another_stem_fits_it(config: Path, tmp_path: Path) -> None:
    plain = ["architecture.stem=plain"]
    first = train(load_train_config(config, plain), tmp_path / "first", command="none")
    whitened = load_train_config(config, [f"init_from={first}"])
    weights = load_file(train(whitened, tmp_path / "second", command="none"))
    assert weights["stem.gains"].max() > 2, "as they start, all are 1"


def test_warm_start(config: Path, tmp_path: Path) -> None:
    """A start from weights with a learning rate of next to nothing ends at them."""
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
    one = narrow.build().double().eval()
    save_network(one, describe(narrow), path)
    wide = replace(narrow, channels=6 * widening)  # type: ignore[call-arg]
    other = wide.build().double().eval()
    if getattr(narrow, "branch_channels", None):
        with pytest.raises(ConfigError, match="another width"):
            warm_start(other, wide, path)
        return
    taken = warm_start(other, wide, path)
    assert taken.widening == widening
    assert not taken.reinitialised
    image = torch.rand(2, 1, 20, 24, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(one(image), other(image), rtol=1e-4, atol=1e-6)
    # No two of its channels are copies to what reads them, or they would stay copies.
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
def test_weights_whose_meaning_would_be_lost_are_refused(
    config: Path, tmp_path: Path, options: list[str]
) -> None:
    first = train(load_train_config(config), tmp_path / "first", command="none")
    other = load_train_config(config, [f"init_from={first}", *options])
    with pytest.raises(ConfigError, match="another width"):
        train(other, tmp_path / "other", command="none")


@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_drawing_ahead_changes_nothing(config: Path, tmp_path: Path, ahead: int) -> None:
    checked = load_train_config(config, ["preserved_noise=0.05"])
    one = load_file(train(checked, tmp_path / "one", command="none", ahead=2))
    other = load_file(train(checked, tmp_path / "other", command="none", ahead=ahead))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_losses() -> None:
    torch.manual_seed(0)
    output, target = torch.rand(2, 2, 1, 8, 8)
    difference = output - target
    assert training_loss(output, target, Loss.L1, 0).item() == pytest.approx(
        difference.abs().mean().item()
    )
    assert training_loss(output, target, Loss.MSE, 0).item() == pytest.approx(
        difference.square().mean().item()
    )
    waves = np.fft.rfft2(output.numpy()) - np.fft.rfft2(target.numpy())
    fourier = (np.abs(waves.real) + np.abs(waves.imag)).mean() / 2
    mixed = training_loss(output, target, Loss.L1, 0.05).item()
    assert mixed == pytest.approx(difference.abs().mean().item() + 0.05 * fourier, rel=1e-5)


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


def test_half_precision_leaves_a_cpu_and_the_stem_alone(config: Path, tmp_path: Path) -> None:
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


def test_the_run_folder_holds_a_plot_of_the_log(config: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    train(load_train_config(config), tmp_path / "run", command="none")
    assert imread(tmp_path / "run" / "metrics.png").std() > 0


def test_tensorboard_gets_the_log_where_it_is_installed(
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


def test_a_training_that_diverges_is_a_failure(config: Path, tmp_path: Path) -> None:
    checked = load_train_config(config, ["learning_rate=1e37", "warmup_steps=0"])
    with pytest.raises(TrainingError, match="no longer a number"):
        train(checked, tmp_path / "run", command="none")
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_images_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="no image"):
        list_image_files(tmp_path)
    colour = tmp_path / "colour.png"
    imsave(colour, np.zeros((8, 8, 3), np.uint8), check_contrast=False)
    small = tmp_path / "small.png"
    imsave(small, np.zeros((3, 9), np.uint8), check_contrast=False)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    for path in (colour, small, broken):
        with pytest.raises(InputError, match=path.name):
            read_images(path, 4)[0]
