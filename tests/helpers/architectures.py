"""A small network of every family and an ablation of every kind, made at any scale."""

from collections.abc import Callable, Mapping
from functools import partial

from cxrsr_cli.networks.config import ImageSkip, NetworkConfig, Stem, Upsampler
from cxrsr_cli.networks.edsr import EdsrConfig
from cxrsr_cli.networks.rcan import RcanConfig
from cxrsr_cli.networks.rir import Attention, RirConfig
from cxrsr_cli.networks.srcnn import SrcnnConfig

Make = Callable[..., NetworkConfig]

_rir = partial(RirConfig, channels=6, groups=2, blocks=2)

SMALL: Mapping[str, Make] = {
    "rir": _rir,
    "rir 3 and 5": partial(_rir, kernels=(3, 5)),
    "rir only 3, wider": partial(_rir, kernels=(3,), branch_channels=11),
    "rir sparse": partial(_rir, dense=False),
    "rir no long skip": partial(_rir, long_skip=False),
    "rir block attention": partial(_rir, attention=Attention.BLOCK, reduction=1),
    "rir group attention": partial(_rir, attention=Attention.GROUP, reduction=1),
    "srcnn": partial(SrcnnConfig, channels=6, mapped=4),
    "srcnn 9-1-5": partial(SrcnnConfig, channels=6, mapped=4, kernels=(9, 1, 5)),
    "edsr": partial(EdsrConfig, channels=6, blocks=3),
    "edsr matched": partial(
        EdsrConfig, channels=6, blocks=3, stem=Stem.WHITENED, upsampler=Upsampler.CONV_SHUFFLE
    ),
    "rcan": partial(RcanConfig, channels=6, groups=2, blocks=2, reduction=2),
    "rcan matched": partial(
        RcanConfig, channels=6, groups=2, blocks=2, reduction=2,
        stem=Stem.WHITENED, upsampler=Upsampler.CONV_SHUFFLE,
    ),
}  # fmt: skip

GLOBAL = {"rir block attention", "rir group attention", "rcan", "rcan matched"}
"""Those that average whole maps."""

LOCAL = sorted(set(SMALL) - GLOBAL)


def small(name: str, scale: int = 2, skip: ImageSkip = ImageSkip.NONE) -> NetworkConfig:
    """Make one of `SMALL`; without an image skip its weights are all random."""
    return SMALL[name](scale=scale, image_skip=skip)
