"""A trained student becomes one file that runs without this package: uint8 RGB in, probability out."""

import io
import json
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from difom_cache import __version__, load_records
from difom_cache.base.atomic import draft_of
from difom_cache.base.errors import RunError, SettingsError, install_extra, name_nearest
from difom_cache.base.options import read_call
from difom_cache.base.outputs import check_out_file, check_outputs
from difom_cache.base.progress import explain_wait
from difom_cache.base.text import Shown
from difom_train.commands import ExportConfig
from difom_train.inference.deployed import Deployed, FrameDeployed, Sizes
from difom_train.inference.frames import FIXED_THRESHOLD
from difom_train.inference.parity import Parity, compare_frames, compare_with_student, render_frame, spread
from difom_train.inference.segmenter import (
    StudentSegmenter,
    identify,
    load_segmenter,
)
from difom_train.students.base import count_parameters
from difom_train.students.outside import StudentSources

if TYPE_CHECKING:
    from difom_train.keywords import ExportKeywords

FORMATS = ("onnx", "torch")
TORCHSCRIPT = ("torchscript", "script", "jit")
OPSET = 18  # the oldest with antialiased resize; with IR 8 runtimes of 2023 and later read it
PARITY_PROB = 1e-4  # largest difference in probability between a float file and its student
PARITY_FRAME_PROB = 0.05  # the same where the file resizes: single pixels are rounded to the next grey level
TO_FRAME_SIZE = "log(prob / (1 - prob)), bilinear resize with half-pixel centres to the frame, then 1 / (1 + exp(-x))"
RESEARCH_NOTICE = (
    "For research only. Not a medical device: not cleared or approved for diagnosis or for use on patients. The data it "
    "was trained on may restrict commercial use."
)


@dataclass(frozen=True, repr=False)
class Exported(Shown):
    """A file that was written, and what it is worth."""

    path: Path
    size_bytes: int
    parity: Parity
    metadata: dict[str, Any]

    def render(self) -> str:
        """Return two lines: the file, and its parity."""
        return f"{self._line()}\n{self.parity.render()}"

    def _line(self) -> str:
        return f"{self.path}: {self.size_bytes / 1e6:.2f} MB, takes {self.metadata['input']}"

    def _table(self) -> list[list[str]]:
        return [["compared with the student"], [self.parity.render()]]

    def as_json(self) -> dict[str, Any]:
        """Return the same for a program."""
        return {**asdict(self), "path": str(self.path)}


def export(
    run: Path | str | ExportConfig,
    *,
    student: StudentSources = None,
    **options: "Unpack[ExportKeywords]",
) -> Exported:
    """Write a student as one file and compare it with the student.

    The file takes `pictures`, uint8 RGB (B, S, S, 3), already resized to S = the run's input size (antialiased bilinear,
    as Pillow's BILINEAR), and gives `prob`, float32 (B, S, S). B is free; with `dynamic_size` both sides are any multiple
    of the student's largest stride.

    Args:
        run: a run folder, or the config of the call.
        student: for a run of your own student: `package.module:Factory`, or the module that was wrapped (see `load_student`).
        **options: as the signature lists them; `out` is needed. Masks of `output_size="frame"` are those of `predict`, up to
            single pixels that fall on the next grey level. Paths of this machine are never in the file.

    Raises:
        SettingsError: options that do not go together, a file that cannot be written or is there, or a missing library.
        RunError: no student, or a float file that does not agree with its student (nothing is written then).
    """
    config = read_call(ExportConfig, options, run=run)
    path, int8, frames, check = config.out, config.int8, config.frames, config.check
    check_out_file(path, force=config.force)
    own = [file for file in config.run.glob("*") if file.is_file() and file.suffix not in (".onnx", ".pt2")]
    check_outputs(path.parent, [path], own)  # an earlier export may lie beside the run's own files
    _check_options(config)
    whole = config.output_size == "frame"
    segmenter = load_segmenter(config.run, device="cpu", student=config.student if student is None else student)
    if not isinstance(segmenter, StudentSegmenter):
        raise SettingsError(
            f"{config.run} is not a student's run folder; only students are exported: give the run of one that learnt from it"
        )
    sizes = Sizes(segmenter.input_px, segmenter.student.largest_stride, dynamic=config.dynamic_size, whole=whole)
    plain = FrameDeployed(segmenter.student, segmenter.input_px) if whole else Deployed(segmenter.student)
    deployed = plain.eval()
    name = None if config.anonymous else config.run.resolve().name
    metadata = describe(segmenter, config.run, name, sizes, int8=int8)
    with draft_of(path) as draft:
        with explain_wait("writing the network as one graph"):
            if config.format == "torch":
                _write_torch(deployed, draft, metadata, sizes)
            else:
                _write_onnx(deployed, draft, sizes)
                if int8:
                    records = load_records(config.calibration or Path(), unlabelled=True)
                    _quantise(draft, [render_frame(each, segmenter.input_px) for each in spread(records, frames)])
                _write_metadata(draft, metadata)
        with explain_wait(f"comparing the file with its student on {frames} frames"):
            exported = load_exported(draft)
            if whole:
                parity = compare_frames(segmenter, exported, check=check, frames=frames)
            else:
                parity = compare_with_student(deployed, exported, segmenter.input_px, check=check, frames=frames)
        if not int8 and parity.prob_difference > (allowed := PARITY_FRAME_PROB if whole else PARITY_PROB):
            raise RunError(
                f"{path}: the exported file differs from its student by {parity.prob_difference:.1e} in probability, more "
                f"than {allowed:.0e}, so it was not kept; try the other format"
            )
    return Exported(path=path, size_bytes=path.stat().st_size, parity=parity, metadata=metadata)


def describe(segmenter: StudentSegmenter, run: Path, name: str | None, sizes: Sizes, *, int8: bool) -> dict[str, Any]:
    """Return what a user of the file must know, ready for JSON; `name` is what the run is called, None leaves it out."""
    student, side = segmenter.student, segmenter.input_px
    size = "the frame's size" if sizes.whole else "input size"
    return {
        "notice": RESEARCH_NOTICE,
        "classes": ["background", "polyp"],
        "input": f"pictures: uint8 RGB (B, H, W, 3), {sizes.describe()}",
        "output": f"prob: float32 (B, H, W), probability of polyp, at {size}",
        "output_size": "frame" if sizes.whole else "input",
        "to_frame_size": "is done inside" if sizes.whole else TO_FRAME_SIZE,
        "threshold": FIXED_THRESHOLD,
        "input_px": side,
        "student": student.name,
        "parameters": count_parameters(student),
        "precision": "int8" if int8 else "float32",
        "provenance": {
            **({"run": name} if name is not None else {}),
            **identify(segmenter, run),
            "training": student.meta,
        },
        "made_by": f"difom {__version__}, torch {torch.__version__}",
    }


def load_exported(path: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return the exported file as a function from pictures (B, H, W, 3) to probabilities (B, H, W)."""
    if _is_onnx(path):
        session = _import_onnxruntime().InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda pictures: session.run(["prob"], {"pictures": pictures})[0]
    module = torch.export.load(str(path)).module()
    return lambda pictures: module(torch.from_numpy(pictures)).detach().numpy()


def _check_options(config: ExportConfig) -> None:
    format, int8, calibration = config.format, config.int8, config.calibration
    if format in TORCHSCRIPT:
        raise SettingsError(
            "TorchScript is not written: PyTorch has deprecated it for torch.export; choose --format torch (a torch.export "
            "file, read by PyTorch 2) or --format onnx (read by ONNX Runtime from Python, C++, C# or Java)"
        )
    if format not in FORMATS:
        raise SettingsError(name_nearest("format", format, list(FORMATS)))
    if int8 and format != "onnx":
        raise SettingsError("--int8 is made for --format onnx")
    if int8 and calibration is None:
        raise SettingsError(
            "--int8 needs frames that set its ranges: --calibration DATA (train frames, no test frames)"
        )
    if calibration is not None and not int8:
        raise SettingsError("--calibration is for --int8")
    if int8 and config.dynamic_size:
        raise SettingsError("--int8 ranges hold for one size; leave out --dynamic-size")
    if config.output_size == "frame" and config.dynamic_size:
        raise SettingsError("--output-size frame takes frames of any size as it is; leave out --dynamic-size")
    if format == "onnx":
        _import_onnxruntime()


def _write_torch(deployed: nn.Module, path: Path, metadata: dict[str, Any], sizes: Sizes) -> None:
    pictures, shapes = sizes.example()
    program = torch.export.export(deployed, (pictures,), dynamic_shapes=shapes)
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # paths of this machine
    with path.open("wb") as file:  # a stream, because a name would have to end in .pt2
        torch.export.save(program, file, extra_files={"difom.json": json.dumps(metadata)})


def _write_onnx(deployed: nn.Module, path: Path, sizes: Sizes) -> None:
    pictures, shapes = sizes.example()
    with redirect_stdout(io.StringIO()):  # the exporter reports each of its steps
        program = torch.onnx.export(
            deployed,
            (pictures,),
            input_names=["pictures"],
            output_names=["prob"],
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RunError(f"{path}: torch.onnx.export gave no program; export with --format torch")
    program.save(str(path))


def _write_metadata(path: Path, metadata: dict[str, Any]) -> None:
    import onnx

    model = onnx.load_model_from_string(path.read_bytes())  # by its name it could be JSON or text
    _strip_traces(model)
    _lower_versions(model)
    model.doc_string = RESEARCH_NOTICE
    words = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    onnx.helper.set_model_props(model, words)
    path.write_bytes(model.SerializeToString())


def _lower_versions(model: Any) -> None:
    """Give a model the oldest opset in which each of its operators is what it is now, and the oldest IR that goes with that.

    The exporter writes the newest IR that it knows, which older runtimes refuse whatever the graph holds.
    """
    from onnx import defs, helper

    used = {node.domain for node in model.graph.node}
    kept = [helper.make_opsetid(each.domain, each.version) for each in model.opset_import if each.domain in used]
    for opset in kept:
        operators = {node.op_type for node in model.graph.node if node.domain == opset.domain}
        if opset.domain == "":
            opset.version = max(defs.get_schema(each, opset.version).since_version for each in operators)
    del model.opset_import[:]
    model.opset_import.extend(kept)
    model.ir_version = helper.find_min_ir_version_for(kept, ignore_unknown=True)


def _strip_traces(message: Any) -> None:
    """Remove what the exporter notes on every part of a graph: stack traces with this machine's paths, doc strings."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in value if isinstance(value, Sequence) else [value]:
                _strip_traces(part)


def _quantise(path: Path, pictures: Sequence[NDArray[np.uint8]]) -> None:
    """Replace the file by its int8 form: weights per channel, activations by the ranges that `pictures` show."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Frames(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(pictures)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            picture = next(self.left, None)
            return None if picture is None else {"pictures": picture[None]}

    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(path),
            Frames(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "ConvTranspose", "MatMul", "Gemm"],
            extra_options={"WeightSymmetric": True},
        )


def _is_onnx(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) != b"PK"  # a torch.export file is a zip


def _import_onnxruntime() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SettingsError(f"--format onnx needs {error.name}: {install_extra('onnx')}") from error
    return onnxruntime
