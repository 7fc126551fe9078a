"""Ways to compute what stands between a network's stem and its shuffle, on a CPU.

All are given the same module: the network with every fusing 1x1 convolution
taken apart into a sum of one for each input, which saves the concatenation.
The stem stays in PyTorch and float32. What needs a package that is not there
raises ImportError.
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

from cxrsr_cli.networks.rir import ResidualBlock, ResidualGroup, ResidualInResidual

Compute = Callable[[torch.Tensor], torch.Tensor]
"""Maps what the stem made, ``(1, 9, H, W)`` float32, to the unscaled residual."""

SUMS = "Add"
ENDS = ("shallow", "deep", "tail")
LAST_GROUP, LAST_GROUPS = ("groups.3",), ("groups.2", "groups.3")
"""What is best left in float, by OpenVINO's and the network's names."""


class Lean(nn.Module):
    """`ResidualInResidual.residual` without a concatenation.

    Parameters
    ----------
    network : ResidualInResidual
        Its groups dense and without attention.
    """

    def __init__(self, network: ResidualInResidual) -> None:
        super().__init__()
        groups = cast("list[ResidualGroup]", list(network.groups))
        self.shallow, self.deep, self.tail = network.shallow, network.deep, network.tail
        self.groups = nn.Sequential(*(_Group(group) for group in groups))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, 9, H, W)`` to ``(N, 1, scale * H, scale * W)``."""
        shallow = self.shallow(x)
        residual: torch.Tensor = self.tail(self.deep(self.groups(shallow)).add_(shallow))
        return residual


class _Group(nn.Module):
    def __init__(self, group: ResidualGroup) -> None:
        super().__init__()
        blocks = cast("list[ResidualBlock]", list(group.blocks))
        self.blocks = nn.ModuleList(_Block(block) for block in blocks)
        *outputs, self.first = _parts(group.fuse, len(blocks) + 1)
        self.fuse = nn.ModuleList(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fused: torch.Tensor = self.first(x)
        for block, fuse in zip(self.blocks, self.fuse, strict=True):
            x = block(x)
            fused.add_(fuse(x))
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
class Material:
    """What an engine is made from.

    Attributes
    ----------
    network : ResidualInResidual
        In evaluation mode, float32.
    examples : sequence of torch.Tensor
        What the stem makes of real radiographs, to calibrate with.
    folder : Path
        Where engines may leave files.
    """

    network: ResidualInResidual
    examples: Sequence[torch.Tensor]
    folder: Path

    def lean(self) -> Lean:
        """Make the module of which all are made."""
        return Lean(copy.deepcopy(self.network).to(memory_format=torch.contiguous_format)).eval()  # type: ignore[call-overload]


@dataclass(frozen=True, slots=True)
class Engine:
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
    prepare: Callable[[Material], Callable[[], Compute]]


def torch_engine(dtype: torch.dtype) -> Callable[[Material], Callable[[], Compute]]:
    """PyTorch's own convolutions, channels last."""

    def prepare(material: Material) -> Callable[[], Compute]:
        def load() -> Compute:
            module = material.lean().to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            return lambda x: module(x.to(dtype, memory_format=torch.channels_last)).float()

        return load

    return prepare


def openvino_engine(
    precision: str = "f32",
    quantise: Callable[[Any, Sequence[torch.Tensor]], Any] | None = None,
) -> Callable[[Material], Callable[[], Compute]]:
    """OpenVINO, compiled for each shape that it meets."""

    def prepare(material: Material) -> Callable[[], Compute]:
        import openvino

        path = material.folder / "openvino.xml"
        model = openvino.convert_model(material.lean(), example_input=material.examples[0])
        if quantise is not None:
            model = quantise(model, material.examples)
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
                types=[] if sums else [SUMS],
                patterns=[rf".*__module\.{re.escape(part)}\b.*" for part in keep],
                validate=False,
            ),
            advanced_parameters=AdvancedQuantizationParameters(
                activations_range_estimator_params=ranges
            ),
        )

    return quantise


def onnxruntime_engine(*, int8: bool = False) -> Callable[[Material], Callable[[], Compute]]:
    """onnxruntime; INT8 by QDQ, static, weights by channel."""

    def prepare(material: Material) -> Callable[[], Compute]:
        import onnxruntime
        from onnxruntime import quantization

        path = material.folder / "plain.onnx"
        torch.onnx.export(
            material.lean(),
            (material.examples[0],),
            path,
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": {2: "h", 3: "w"}},
        )
        if int8:
            plain, path = path, material.folder / "int8.onnx"
            quantization.quantize_static(
                plain,
                path,
                _Reader(material.examples),
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


ENGINES = (
    Engine("PyTorch float32", "the reference", torch_engine(torch.float32)),
    Engine("PyTorch bfloat16", "all but the stem", torch_engine(torch.bfloat16)),
    Engine("OpenVINO float32", "", openvino_engine()),
    Engine("OpenVINO bfloat16", "its precision hint", openvino_engine("bf16")),
    Engine(
        "OpenVINO INT8",
        "NNCF, mixed preset",
        openvino_engine(quantise=nncf_int8(extremes=False)),
    ),
    Engine("OpenVINO INT8", "ranges of extremes", openvino_engine(quantise=nncf_int8())),
    Engine(
        "OpenVINO INT8",
        "and sums in float",
        openvino_engine(quantise=nncf_int8(sums=False)),
    ),
    Engine(
        "OpenVINO INT8",
        "and both ends in float",
        openvino_engine(quantise=nncf_int8(sums=False, keep=ENDS)),
    ),
    Engine(
        "OpenVINO INT8",
        "and last group, these in bfloat16",
        openvino_engine("bf16", nncf_int8(sums=False, keep=(*ENDS, *LAST_GROUP))),
    ),
    Engine(
        "OpenVINO INT8",
        "and the last two groups, in bfloat16",
        openvino_engine("bf16", nncf_int8(sums=False, keep=(*ENDS, *LAST_GROUPS))),
    ),
    Engine("onnxruntime float32", "", onnxruntime_engine()),
    Engine("onnxruntime INT8", "QDQ, unsigned activations", onnxruntime_engine(int8=True)),
)
