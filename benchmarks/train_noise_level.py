"""Train the estimator of an image's noise.

    python -m benchmarks.train_noise_level OUT CONFIG... [--steps 6000] [--set KEY=VALUE]

Each CONFIG is the configuration of a network (models/rir-s-x4.yaml, models/rir-s-x8.yaml): its
images and degradations are used, at its scale, in turn. The loss is the Gaussian likelihood of what
noise and JPEG added to the input. Every 500 steps, the share of errors within two standard
deviations is printed: 95 % if the estimate is right. Needs a checkout with its package installed.
"""

import argparse
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from cxrsr_cli.common.files import atomic_write
from cxrsr_cli.errors import CxrsrError
from cxrsr_cli.networks.noise_level import STRIDE, NoiseLevel, average_cells
from cxrsr_cli.training.config import load_train_config
from cxrsr_cli.training.patch_sampler import PatchSampler
from cxrsr_cli.training.training_data import load_training_data

PATCH = 72
BATCH = 6
LEARNING_RATE = 1e-3
MAX_GRADIENT_NORM = 0.5
SEED = 0
MIN_VARIANCE = 1e-8
"""In network values: twice the variance of rounding to 12 bits. A flat patch has no error at all,
and its likelihood would have no bound."""
REPORT_EVERY = 500


def main() -> None:
    """Train and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("configs", type=Path, nargs="+", metavar="CONFIG")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(SEED)
    torch.manual_seed(SEED)
    samplers = []
    try:
        for path in arguments.configs:
            config = load_train_config(path, arguments.overrides)
            data = load_training_data(config)
            samplers.append(
                PatchSampler.from_config(config, data.train, generator, weights=data.weights)
            )
    except CxrsrError as error:
        sys.exit(f"train_noise_level: {error}")
    network = NoiseLevel()
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    losses, inside = 0.0, 0.0
    for step in range(1, arguments.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 + math.cos(math.pi * step / arguments.steps)) / 2
        sampler = samplers[step % len(samplers)]
        batch = sampler.make(sampler.plan(BATCH, PATCH))
        logarithm = network(batch.low)
        rows, columns = logarithm.shape[-2:]
        power = average_cells(batch.error.square())[..., :rows, :columns]
        variance = (2 * logarithm).exp() + MIN_VARIANCE
        loss = (variance.log() + (power + MIN_VARIANCE) / variance).mean() / 2
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        losses += loss.item()
        centres = batch.error[..., STRIDE::STRIDE, STRIDE::STRIDE][..., :rows, :columns]
        inside += (centres.abs() <= 2 * logarithm.exp()).float().mean().item()
        if step % REPORT_EVERY == 0:
            print(
                f"step {step}: loss {losses / REPORT_EVERY:.4f}, "
                f"{inside / REPORT_EVERY:.1%} within two standard deviations",
                flush=True,
            )
            losses, inside = 0.0, 0.0
    with atomic_write(arguments.out) as temporary:
        save_file(network.state_dict(), temporary)


if __name__ == "__main__":
    main()
