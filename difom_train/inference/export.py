"""A trained student becomes one file that runs without this package: uint8 RGB in, probability out."""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from difom_cache import (
    Record,
    __version__,
    check_out_file,
    draft_of,
    explain_wait,
    load_records,
    read_image,
    replay_mask,
)
from difom_cache.errors import RunError, SettingsError, name_nearest
from difom_train.inference.frames import FIXED_THRESHOLD, choose_records, dice, read_truth
from difom_train.inference.segmenter import StudentSegmenter, identify, load_segmenter, render_picture, whole_frame
from difom_train.students.base import count_parameters
from difom_train.students.outside import StudentSources

FORMATS = ("onnx", "torch")
TORCHSCRIPT = ("torchscript", "script", "jit")
OPSET = 18  # the oldest with antialiased resize; runtimes of 2023 and later read it
PARITY_PROB = 1e-4  # largest difference in probability between a float file and its student
LARGEST_SIDE_STRIDES = 256  # bound of the dynamic sides, in strides of the student
RESEARCH_NOTICE = (
    "For research only. Not a medical device: not cleared or approved for diagnosis or for use on patients. The data it "
    "was trained on may restrict commercial use."
)


class Deployed(nn.Module):
    """A student with everything around it that a device would get wrong: layout, scaling, normalisation, sigmoid."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the probability (B, H, W) of pictures (B, H, W, 3) uint8 RGB."""
        pixels = pictures.permute(0, 3, 1, 2).float() / 255  # (B, H, W, 3) -> (B, 3, H, W)
        return torch.sigmoid(self.student(pixels))[:, 0]


@dataclass(frozen=True)
class Parity:
    """How close an exported file is to its student, at input size.

    Attributes:
        frames: how many were compared.
        real: False where they were made of noise, for want of data.
        prob_difference: the largest, over all pixels.
        agreement_frac: share of pixels that both call polyp or both do not.
        student_dice: mean Dice of the student against the masks, None without masks.
        file_dice: the same of the file.
    """

    frames: int
    real: bool
    prob_difference: float
    agreement_frac: float
    student_dice: float | None
    file_dice: float | None

    def render(self) -> str:
        """Return the comparison as one line."""
        kind = "real frames" if self.real else "frames of noise (pass --check DATA for real ones)"
        dice = f"; Dice {self.student_dice:.4f} -> {self.file_dice:.4f}" if self.file_dice is not None else ""
        return (
            f"parity over {self.frames} {kind}: probabilities within {self.prob_difference:.1e}, "
            f"{self.agreement_frac:.3%} of pixels alike{dice}"
        )


@dataclass(frozen=True)
class Exported:
    """A file that was written, and what it is worth."""

    path: Path
    size_bytes: int
    parity: Parity
    metadata: dict[str, Any]

    def render(self) -> str:
        """Return two lines: the file, and its parity."""
        takes = self.metadata["input"]
        return f"{self.path}: {self.size_bytes / 1e6:.2f} MB, takes {takes}\n{self.parity.render()}"

    def as_json(self) -> dict[str, Any]:
        """Return the same for a program."""
        return {**asdict(self), "path": str(self.path)}


def export(
    run: Path | str,
    *,
    format: str = "onnx",
    out: Path | str,
    dynamic_size: bool = False,
    int8: bool = False,
    calibration: Path | str | None = None,
    check: Path | str | None = None,
    frames: int = 16,
    force: bool = False,
    anonymous: bool = False,
    student: StudentSources = None,
) -> Exported:
    """Write a student as one file and compare it with the student.

    The file takes `pictures`, uint8 RGB (B, S, S, 3), already resized to S = the run's input size (antialiased bilinear,
    as Pillow's BILINEAR), and gives `prob`, float32 (B, S, S). B is free; with `dynamic_size` both sides are any multiple
    of the student's largest stride.

    Args:
        run: a run folder.
        format: "onnx", or "torch" for a torch.export file (.pt2).
        out: the file.
        dynamic_size: leave height and width free.
        int8: quantise weights and activations (onnx only); needs `calibration`.
        calibration: data whose train frames set the ranges of int8.
        check: data whose frames, masks if there are any, the file is compared on.
        frames: how many frames calibrate, and how many are compared.
        force: replace a file that is there.
        anonymous: leave the run's name out of the file. Paths of this machine are never in it.
        student: for a run of your own student: `package.module:Factory`, or the module that was wrapped (see `load_student`).

    Raises:
        SettingsError: options that do not go together, a file that cannot be written or is there, or a missing library.
        RunError: no student, or a float file that does not agree with its student (nothing is written then).
    """
    path = Path(out)
    check_out_file(path, force=force)
    _check_options(format, int8=int8, calibration=calibration, dynamic_size=dynamic_size, frames=frames)
    segmenter = load_segmenter(run, device="cpu", student=student)
    if not isinstance(segmenter, StudentSegmenter):
        raise SettingsError(f"{run} is not a student's run folder; only students are exported")
    deployed = Deployed(segmenter.student).eval()
    name = None if anonymous else Path(run).resolve().name
    metadata = describe(segmenter, Path(run), name, dynamic_size=dynamic_size, int8=int8)
    with draft_of(path) as draft:
        with explain_wait("writing the network as one graph"):
            if format == "torch":
                _write_torch(deployed, draft, metadata, segmenter, dynamic_size=dynamic_size)
            else:
                _write_onnx(deployed, draft, segmenter, dynamic_size=dynamic_size)
                if int8:
                    records = load_records(Path(calibration or ""), unlabelled=True)
                    _quantise(draft, [render_frame(each, segmenter.input_px) for each in _spread(records, frames)])
                _write_metadata(draft, metadata)
        with explain_wait(f"comparing the file with its student on {frames} frames"):
            parity = compare_with_student(
                deployed, load_exported(draft), segmenter.input_px, check=check, frames=frames
            )
        if not int8 and parity.prob_difference > PARITY_PROB:
            raise RunError(
                f"{path}: the exported file differs from its student by {parity.prob_difference:.1e} in probability, more "
                f"than {PARITY_PROB:.0e}, so it was not kept; try the other format"
            )
    return Exported(path=path, size_bytes=path.stat().st_size, parity=parity, metadata=metadata)


def describe(
    segmenter: StudentSegmenter, run: Path, name: str | None, *, dynamic_size: bool, int8: bool
) -> dict[str, Any]:
    """Return what a user of the file must know, ready for JSON; `name` is what the run is called, None leaves it out."""
    student, side = segmenter.student, segmenter.input_px
    sides = f"sides are multiples of {student.largest_stride}" if dynamic_size else f"{side} x {side}"
    return {
        "notice": RESEARCH_NOTICE,
        "classes": ["background", "polyp"],
        "input": f"pictures: uint8 RGB (B, H, W, 3), {sides}, antialiased bilinear resize of the whole frame",
        "output": "prob: float32 (B, H, W), probability of polyp, at input size",
        "to_frame_size": "log(prob / (1 - prob)), bilinear resize with half-pixel centres to the frame, then 1 / (1 + exp(-x))",
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


def compare_with_student(
    deployed: Deployed,
    exported: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    input_px: int,
    *,
    check: Path | str | None,
    frames: int,
) -> Parity:
    """Return how close an exported file is to its student over some frames, one at a time."""
    worst, alike, dices = 0.0, [], []
    count = 0
    for picture, truth in _check_frames(check, input_px, frames):
        with torch.inference_mode():
            wanted = deployed(torch.from_numpy(picture[None]))[0].numpy()
        found = exported(picture[None])[0]
        worst = max(worst, float(np.abs(wanted - found).max()))
        masks = [prob >= FIXED_THRESHOLD for prob in (wanted, found)]
        alike.append(float((masks[0] == masks[1]).mean()))
        if truth is not None:
            dices.append([dice((mask & truth).sum(), mask.sum() + truth.sum()) for mask in masks])
        count += 1
    student_dice, file_dice = np.mean(dices, axis=0).tolist() if dices else (None, None)
    return Parity(count, check is not None, worst, float(np.mean(alike)), student_dice, file_dice)


def render_frame(record: Record, input_px: int) -> NDArray[np.uint8]:
    """Return a record's frame as an exported file takes it, (input_px, input_px, 3) uint8."""
    pixels = render_picture(read_image(record.image), input_px)
    return (pixels * 255).round().byte().permute(1, 2, 0).contiguous().numpy()  # (3, S, S) -> (S, S, 3)


def _check_options(format: str, *, int8: bool, calibration: Any, dynamic_size: bool, frames: int) -> None:
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
    if int8 and dynamic_size:
        raise SettingsError("--int8 ranges hold for one size; leave out --dynamic-size")
    if frames < 1:
        raise SettingsError(f"--frames is at least 1, found {frames}")
    if format == "onnx":
        _import_onnxruntime()


def _check_frames(
    check: Path | str | None, input_px: int, frames: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_] | None]]:
    if check is None:
        noise = np.random.default_rng(0)
        for _ in range(frames):
            yield noise.integers(0, 256, (input_px, input_px, 3), dtype=np.uint8), None
        return
    for record in _spread(choose_records(Path(check)), frames):
        truth = torch.from_numpy(read_truth(record).astype(np.uint8))
        mask = replay_mask(truth, whole_frame(record.width, record.height), input_px)
        yield render_frame(record, input_px), mask.numpy().astype(bool)


def _spread(records: Sequence[Record], count: int) -> list[Record]:
    """Return `count` records, evenly spread over the list."""
    picks = np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int)
    return [records[pick] for pick in picks]


def _example(segmenter: StudentSegmenter, *, dynamic_size: bool) -> tuple[Tensor, dict[str, Any]]:
    """Return an example input and which of its sides are free."""
    stride, side = segmenter.student.largest_stride, segmenter.input_px
    free: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    if not dynamic_size:
        return torch.zeros(2, side, side, 3, dtype=torch.uint8), {"pictures": free}
    free[1] = stride * torch.export.Dim("rows", min=1, max=LARGEST_SIDE_STRIDES)
    free[2] = stride * torch.export.Dim("columns", min=1, max=LARGEST_SIDE_STRIDES)
    # Unequal sides, so that no exporter takes height and width for one number.
    return torch.zeros(2, side, side + 2 * stride, 3, dtype=torch.uint8), {"pictures": free}


def _write_torch(
    deployed: Deployed, path: Path, metadata: dict[str, Any], segmenter: StudentSegmenter, *, dynamic_size: bool
) -> None:
    pictures, shapes = _example(segmenter, dynamic_size=dynamic_size)
    program = torch.export.export(deployed, (pictures,), dynamic_shapes=shapes)
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # paths of this machine
    with path.open("wb") as file:  # a stream, because a name would have to end in .pt2
        torch.export.save(program, file, extra_files={"difom.json": json.dumps(metadata)})


def _write_onnx(deployed: Deployed, path: Path, segmenter: StudentSegmenter, *, dynamic_size: bool) -> None:
    pictures, shapes = _example(segmenter, dynamic_size=dynamic_size)
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

    model = onnx.load(str(path))
    _strip_traces(model)
    model.doc_string = RESEARCH_NOTICE
    words = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    onnx.helper.set_model_props(model, words)
    onnx.save(model, str(path))


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
        raise SettingsError(f"--format onnx needs {error.name}: pip install 'difom[onnx]'") from error
    return onnxruntime
