"""Backends that compute a network between its stem and its pixel shuffle, on a CPU.

All backends get the same module: the network with every fusing 1x1 convolution
split into a sum of one per input, which saves the concatenation. The stem is
computed by PyTorch in float32. A backend whose package is not installed raises
ImportError.
"""

import copy
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own idiom
from torch import nn

from cxrsr_cli.networks.config import DEFAULT_NOISE_SHARE
from cxrsr_cli.networks.rir import ResidualBlock, ResidualGroup, ResidualInResidual

Compute = Callable[[torch.Tensor], torch.Tensor]
"""Maps the output of the stem, ``(1, 9, H, W)`` float32, to the unscaled residual."""

ADDITIONS = "Add"
OUTER_LAYERS = ("shallow", "deep", "tail")
LAST_GROUP, LAST_GROUPS = ("groups.3",), ("groups.2", "groups.3")
"""Layers to keep in float, by the names of OpenVINO and of the network."""


class SplitFusionNetwork(nn.Module):
    """`ResidualInResidual.residual` without a concatenation.

    Parameters
    ----------
    network : ResidualInResidual
        Without attention.
    noise_share : float
        Share of the noise that the output keeps.
    """

    def __init__(
        self, network: ResidualInResidual, noise_share: float = DEFAULT_NOISE_SHARE
    ) -> None:
        super().__init__()
        self.share, self.noise_share = network.share, noise_share
        groups = cast("list[ResidualGroup]", list(network.groups))
        self.shallow, self.deep, self.tail = network.shallow, network.deep, network.tail
        self.groups = nn.Sequential(*(_Group(group) for group in groups))
        self.long_skip = network.long_skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, 9, H, W)`` to ``(N, 1, scale * H, scale * W)``."""
        shallow = self.shallow(x)
        if self.share:
            shallow = self.share(shallow, self.noise_share)
        deep = self.deep(self.groups(shallow))
        residual: torch.Tensor = self.tail(deep.add_(shallow) if self.long_skip else deep)
        return residual


class _Group(nn.Module):
    def __init__(self, group: ResidualGroup) -> None:
        super().__init__()
        blocks = cast("list[ResidualBlock]", list(group.blocks))
        self.blocks = nn.ModuleList(_Block(block) for block in blocks)
        fused = [*blocks, group] if group.dense else blocks[-1:]
        self.fuse = nn.ModuleList(_parts(group.fuse, len(fused)))
        self.dense = group.dense

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = [x]
        for block in self.blocks:
            outputs.append(block(outputs[-1]))
        if not self.dense:
            made: torch.Tensor = self.fuse[0](outputs[-1])
            return made
        *others, last = self.fuse
        fused: torch.Tensor = last(x)
        for fuse, output in zip(others, outputs[1:], strict=True):
            fused.add_(fuse(output))
        return fused


class _Block(nn.Module):
    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.branches = block.branches
        self.fuse = nn.ModuleList(_parts(block.fuse, len(block.branches)))
        self.negative_slope = block.negative_slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *others, last = zip(self.branches, self.fuse, strict=True)
        output = self._one(*last, x)
        for branch, fuse in others:
            output.add_(self._one(branch, fuse, x))
        return output.add_(x)

    def _one(self, branch: nn.Module, fuse: nn.Module, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = fuse(F.leaky_relu_(branch(x), self.negative_slope))
        return made


def _parts(whole: nn.Conv2d, count: int) -> list[nn.Conv2d]:
    """Take a 1x1 convolution of a concatenation apart; the last part has its bias."""
    parts = list[nn.Conv2d]()
    for weight in whole.weight.detach().chunk(count, dim=1):
        part = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=len(parts) == count - 1)
        part.weight.data.copy_(weight)
        parts.append(part)
    if parts[-1].bias is not None and whole.bias is not None:
        parts[-1].bias.data.copy_(whole.bias.detach())
    return parts


@dataclass(frozen=True, slots=True)
class BackendInputs:
    """What a backend is made from.

    Attributes
    ----------
    network : ResidualInResidual
        In evaluation mode, float32.
    examples : sequence of torch.Tensor
        Outputs of the stem for real radiographs, for calibration.
    folder : Path
        Folder for files of the backends.
    """

    network: ResidualInResidual
    examples: Sequence[torch.Tensor]
    folder: Path

    def split_network(self) -> SplitFusionNetwork:
        """Make the module that all backends compute."""
        network = copy.deepcopy(self.network)
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return SplitFusionNetwork(network).eval()


@dataclass(frozen=True, slots=True)
class Backend:
    """A line of the table.

    Attributes
    ----------
    name : str
        Package and arithmetic.
    about : str
        How.
    prepare : callable
        Does what is done once, such as exporting and calibrating, and returns
        what loads the result, as a program would that is given the file.
    """

    name: str
    about: str
    prepare: Callable[[BackendInputs], Callable[[], Compute]]


def torch_backend(dtype: torch.dtype) -> Callable[[BackendInputs], Callable[[], Compute]]:
    """PyTorch's own convolutions, channels last."""

    def prepare(inputs: BackendInputs) -> Callable[[], Compute]:
        def load() -> Compute:
            module = inputs.split_network().to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            return lambda x: module(x.to(dtype, memory_format=torch.channels_last)).float()

        return load

    return prepare


def openvino_backend(
    precision: str = "f32",
    quantise: Callable[[Any, Sequence[torch.Tensor]], Any] | None = None,
) -> Callable[[BackendInputs], Callable[[], Compute]]:
    """Return OpenVINO, compiled for each shape of its input."""

    def prepare(inputs: BackendInputs) -> Callable[[], Compute]:
        import openvino

        path = inputs.folder / "openvino.xml"
        model = openvino.convert_model(inputs.split_network(), example_input=inputs.examples[0])
        if quantise is not None:
            model = quantise(model, inputs.examples)
        openvino.save_model(model, path, compress_to_fp16=False)

        def load() -> Compute:
            return _OpenVino(openvino, path, precision)

        return load

    return prepare


class _OpenVino:
    def __init__(self, openvino: Any, path: Path, precision: str) -> None:  # noqa: ANN401 - an optional module
        self.core = openvino.Core()
        self.model = self.core.read_model(path)
        self.options = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.requests = dict[tuple[int, ...], Any]()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        shape = tuple(x.shape)
        if shape not in self.requests:
            model = self.model.clone()
            model.reshape(list(shape))
            compiled = self.core.compile_model(model, "CPU", self.options)
            self.requests = {shape: compiled.create_infer_request()}
        request = self.requests[shape]
        request.infer({0: x.contiguous().numpy()}, share_inputs=True)
        return torch.from_numpy(request.get_output_tensor(0).data.copy())


def nncf_int8(
    *, extremes: bool = True, sums: bool = True, keep: Sequence[str] = ()
) -> Callable[[Any, Sequence[torch.Tensor]], Any]:
    """NNCF's post-training quantisation, weights by channel.

    Parameters
    ----------
    extremes : bool
        Whether the range of an activation is from the smallest to the largest
        value seen in any example; by NNCF's default it is from their means
        over the examples, and a mark at the border may lie outside.
    sums : bool
        Whether additions are quantised too.
    keep : sequence of str
        Parts of the network that are not.
    """

    def quantise(model: Any, examples: Sequence[torch.Tensor]) -> Any:  # noqa: ANN401 - an optional module
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        ranges = RangeEstimatorParametersSet.MINMAX if extremes else None
        logging.getLogger("nncf").setLevel(logging.WARNING)
        return nncf.quantize(
            model,
            nncf.Dataset(examples, lambda x: x.numpy()),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(examples),
            ignored_scope=nncf.IgnoredScope(
                types=[] if sums else [ADDITIONS],
                patterns=[rf".*__module\.{re.escape(part)}\b.*" for part in keep],
                validate=False,
            ),
            advanced_parameters=AdvancedQuantizationParameters(
                activations_range_estimator_params=ranges
            ),
        )

    return quantise


def onnxruntime_backend(*, int8: bool = False) -> Callable[[BackendInputs], Callable[[], Compute]]:
    """onnxruntime; INT8 by QDQ, static, weights by channel."""

    def prepare(inputs: BackendInputs) -> Callable[[], Compute]:
        import onnxruntime
        from onnxruntime import quantization

        path = inputs.folder / "plain.onnx"
        torch.onnx.export(
            inputs.split_network(),
            (inputs.examples[0],),
            path,
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": {2: "h", 3: "w"}},
        )
        if int8:
            plain, path = path, inputs.folder / "int8.onnx"
            quantization.quantize_static(
                plain,
                path,
                _Reader(inputs.examples),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                per_channel=True,
            )

        def load() -> Compute:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
            return lambda x: torch.from_numpy(session.run(None, {"x": x.contiguous().numpy()})[0])

        return load

    return prepare


class _Reader:
    """Feeds the calibration of onnxruntime."""

    def __init__(self, examples: Iterable[torch.Tensor]) -> None:
        self.left = iter(examples)

    def get_next(self) -> dict[str, Any] | None:
        return next(({"x": x.numpy()} for x in self.left), None)


BACKENDS = (
    Backend("PyTorch float32", "the reference", torch_backend(torch.float32)),
    Backend("PyTorch bfloat16", "all but the stem", torch_backend(torch.bfloat16)),
    Backend("OpenVINO float32", "", openvino_backend()),
    Backend("OpenVINO bfloat16", "its precision hint", openvino_backend("bf16")),
    Backend(
        "OpenVINO INT8",
        "NNCF, mixed preset",
        openvino_backend(quantise=nncf_int8(extremes=False)),
    ),
    Backend("OpenVINO INT8", "ranges of extremes", openvino_backend(quantise=nncf_int8())),
    Backend(
        "OpenVINO INT8",
        "and sums in float",
        openvino_backend(quantise=nncf_int8(sums=False)),
    ),
    Backend(
        "OpenVINO INT8",
        "and both ends in float",
        openvino_backend(quantise=nncf_int8(sums=False, keep=OUTER_LAYERS)),
    ),
    Backend(
        "OpenVINO INT8",
        "and last group, these in bfloat16",
        openvino_backend("bf16", nncf_int8(sums=False, keep=(*OUTER_LAYERS, *LAST_GROUP))),
    ),
    Backend(
        "OpenVINO INT8",
        "and the last two groups, in bfloat16",
        openvino_backend("bf16", nncf_int8(sums=False, keep=(*OUTER_LAYERS, *LAST_GROUPS))),
    ),
    Backend("onnxruntime float32", "", onnxruntime_backend()),
    Backend("onnxruntime INT8", "QDQ, unsigned activations", onnxruntime_backend(int8=True)),
)
