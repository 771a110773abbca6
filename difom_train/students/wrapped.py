"""Any module as a student: forward hooks read its levels, and where the neck stands they hand on the neck's result.

What a module is like (channels, cells, what runs before the bottleneck) is measured on one dry forward pass.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from difom_cache.base.compat import hooks_of, writes_of
from difom_cache.base.errors import SettingsError, name_nearest
from difom_cache.base.progress import say
from difom_cache.teachers import IMAGENET_MEAN, IMAGENET_STD
from difom_train.students.base import BOTTLENECK, Level, Student, StudentOutput, StudentSettings, Wrap
from difom_train.students.necks import KEEPS_CHANNELS, NECK_CHANNELS, build_neck

DRY_PX, LARGEST_DRY_PX = 256, 4096
MAIN = ("out", "logits")  # keys of the main logits in a dict: torchvision's, and that of transformers
AUXILIARY = "aux"
_CLASSES = 2  # logits have one channel, or two
_FINEST = 4  # stride of the finest level that is looked for: no teacher has a finer tap


def wrap_student(
    module: nn.Module,
    levels: Mapping[str, int] | None = None,
    *,
    name: str | None = None,
    neck: str | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    input_px: int | None = None,
    pretrained: bool = False,
) -> "WrappedStudent":
    """Return a segmentation network of any kind as a student; the module is held, not copied.

    The module may return a map of logits, a dict with `out` (and `aux`) as torchvision's do, or with `logits`, or a tuple or
    list whose first is the main one. Maps are (B, 1, h, w), or (B, 2, h, w) of background and polyp; they are resized to the
    picture. A module belongs to the last student that wrapped it.

    Args:
        module: from normalised pixels (B, 3, H, W) to logits.
        levels: name of a module inside to the stride of its output, a map (B, C, H / stride, W / stride). The one of the
            largest stride becomes level `bottleneck`; of several, the one that runs last. None finds them, and says which.
        name: what the student is called; by default its class.
        neck: None, "residual", "difom" or "paper"; training adds what a recipe needs.
        mean, std: of the normalisation that the module expects of its input; (0, 0, 0) and (1, 1, 1) for none.
        input_px: side of the picture of the dry forward pass; by default 256, or the next multiple of the largest stride.
        pretrained: whether the encoder's weights are worth keeping, so that it moves at `pretrained_encoder_lr_factor`.

    Raises:
        SettingsError: no such module inside, a map of another stride, or logits that are none.
    """
    name = name or type(module).__name__
    found = find_levels(module, name, input_px or DRY_PX) if levels is None else levels
    wrap = read_wrap(found, mean, std, input_px)
    return WrappedStudent(module, StudentSettings(name, neck=neck, wrap=wrap), pretrained)


def read_wrap(
    strides: Mapping[str, int], mean: Sequence[float], std: Sequence[float], input_px: int | None = None
) -> Wrap:
    """Return how a module becomes a student, checked as far as it can be without the module."""
    wrong = [name for name, stride in strides.items() if type(stride) is not int or stride < 1]
    if not strides or wrong:
        found = f"{wrong[0]!r}: {strides[wrong[0]]!r}" if wrong else "none"
        raise SettingsError(f'levels are module names with strides in px, such as {{"layer2": 8}}; found {found}')
    largest = max(strides.values())
    side = input_px or -(-DRY_PX // largest) * largest
    if type(side) is not int or side % largest or not 0 < side <= LARGEST_DRY_PX:
        raise SettingsError(
            f"input_px is a multiple of {largest}, the largest stride, up to {LARGEST_DRY_PX}; found {side!r}"
        )
    return Wrap(dict(strides), _check_triple("mean", mean), _check_triple("std", std), side)


class WrappedStudent(Student):
    """A module with hooks.

    Attributes:
        network: the module.
    """

    def __init__(self, network: nn.Module, settings: StudentSettings, pretrained: bool = False) -> None:
        wrap = settings.wrap
        if wrap is None:
            raise SettingsError(f"{settings.name} does not say which modules are levels; make it with wrap_student")
        remove_readers(network)
        dry = _run_dry(settings.name, network, wrap)
        places = {BOTTLENECK if name == dry.bottleneck else name: name for name in wrap.strides}
        levels = {level: Level(dry.channels[name], wrap.strides[name]) for level, name in places.items()}
        super().__init__(settings, levels, neck=None, mean=wrap.mean, std=wrap.std)
        self.pretrained = pretrained
        self.network = network
        self.widen: nn.Module = nn.Identity()
        self._encoder, self._resizes = dry.encoder, dry.resizes
        self._maps: dict[str, Tensor] | None = None  # while a forward pass of the student runs
        self._shown: dict[str, Tensor] = {}
        for level, name in places.items():
            network.get_submodule(name).register_forward_hook(_Reader(self, level))
        if settings.neck is not None:
            self.add_neck(settings.neck)

    def add_neck(self, name: str) -> None:
        """Let the neck's result, of as many channels as the module expects, go on from the bottleneck."""
        channels = self.levels[BOTTLENECK].channels
        self.neck = build_neck(name, channels)
        if name not in KEEPS_CHANNELS:
            self.widen = nn.Conv2d(NECK_CHANNELS, channels, kernel_size=1)
        self.settings = StudentSettings(**{**vars(self.settings), "neck": name})

    def forward_train(self, pictures: Tensor) -> StudentOutput:
        levels: dict[str, Tensor] = {}
        self._maps, self._shown = levels, {}
        try:
            found = self.network(self.normalise(pictures))
            shown = self._shown
        finally:  # nothing of the pass is held on to
            self._maps, self._shown = None, {}
        absent = [name for name in self.levels if name not in levels]
        if absent:
            raise SettingsError(
                f"{self.name}: level {absent[0]!r} was not run in this forward pass; has its module been wrapped again since?"
            )
        logits = [
            interpolate(each, pictures.shape[-2:], mode="bilinear", align_corners=False) if resizes else each
            for each, resizes in zip(read_logits(self.name, found), self._resizes, strict=False)
        ]
        return StudentOutput(logits=logits, levels={name: levels[name] for name in self.levels}, neck=shown)

    def keep(self, level: str, output: Tensor) -> Tensor | None:
        """Take a level's map; return what goes on in its place, None for itself, as where the module is run by itself."""
        if self._maps is None:
            return None
        self._maps[level] = output
        if level != BOTTLENECK or self.neck is None:
            return None
        mixed, self._shown = self.neck(output)
        widened: Tensor = self.widen(mixed)
        return widened

    def encoder_modules(self) -> list[nn.Module]:
        """Return what has run once the bottleneck is there."""
        return [self.network.get_submodule(name) for name in self._encoder]

    def weights_home(self) -> nn.Module:
        return self.network


class _Reader:
    """A forward hook that gives a module's output to its student; copied along with both."""

    def __init__(self, student: WrappedStudent, level: str) -> None:
        self.student, self.level = student, level

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        return self.student.keep(self.level, output)


def remove_readers(network: nn.Module) -> None:
    """Take the hooks of an earlier student off a module."""
    for module in network.modules():
        hooks = hooks_of(module)
        for number in [number for number, hook in hooks.items() if isinstance(hook, _Reader)]:
            del hooks[number]


def read_logits(name: str, found: Any) -> list[Tensor]:
    """Return the logits (B, 1, h, w) that a network returned in some wrapping, the main ones first.

    Raises:
        SettingsError: there are none, or they are of more than two classes.
    """
    if isinstance(found, Mapping):
        main = next((key for key in MAIN if key in found), None)
        if main is None:
            raise SettingsError(
                f"{name} returns a dict of {', '.join(map(str, found))}; expected its logits under {' or '.join(MAIN)}"
            )
        maps = [found[main], *([found[AUXILIARY]] if AUXILIARY in found else [])]
    else:
        maps = list(found) if isinstance(found, tuple | list) else [found]
    if not maps or not isinstance(maps[0], Tensor) or maps[0].ndim != 4:
        raise SettingsError(f"{name} returns {_describe(maps[0] if maps else None)}; expected logits (B, 1, h, w)")
    classes = maps[0].shape[1]
    if classes > 2:
        raise SettingsError(f"{name} gives logits of {classes} classes; build it with one (polyp), or two")
    alike = [each for each in maps if isinstance(each, Tensor) and each.ndim == 4 and each.shape[1] == classes]
    # The softmax of two logits is the sigmoid of their difference.
    return alike if classes == 1 else [each[:, 1:] - each[:, :1] for each in alike]


@dataclass
class _Dry:
    """What a dry forward pass has shown."""

    bottleneck: str = ""
    channels: dict[str, int] = field(default_factory=dict)
    encoder: list[str] = field(default_factory=list)
    "Names of the modules that had run once the bottleneck had; none lies inside another."
    resizes: list[bool] = field(default_factory=list)
    "Of each map of logits, whether it is of another size than the picture."


def _run_dry(name: str, network: nn.Module, wrap: Wrap) -> _Dry:
    """Return what one pass over a grey picture shows; the network is as before afterwards.

    Raises:
        SettingsError: levels or logits that are not as they should be.
    """
    modules = dict(network.named_modules())
    for level in wrap.strides:
        if level not in modules or not level:
            raise SettingsError(f"{name}: {name_nearest('module', level, [each for each in modules if each])}")
    side = wrap.input_px
    order, found = _watch(name, network, side)
    for level, stride in wrap.strides.items():
        _check_level(name, level, stride, side, [(out, version) for each, out, version in order if each == level])
    ran = [each for each, _, _ in order]
    deepest = max(wrap.strides, key=lambda each: (wrap.strides[each], ran.index(each)))
    before = set(ran[: ran.index(deepest) + 1])
    outermost = [each for each in dict.fromkeys(ran) if each in before and not before & set(_parents(each))]
    return _Dry(
        bottleneck=deepest,
        channels={each: int(out.shape[1]) for each, out, _ in order if each in wrap.strides},
        encoder=outermost,
        resizes=[each.shape[-2:] != (side, side) for each in read_logits(name, found)],
    )


def find_levels(network: nn.Module, name: str, side_px: int = DRY_PX) -> dict[str, int]:
    """Return levels of a network, by name with their strides, and say which: of each stride the map that is ready last.

    Maps count until the resolution rises again, which is the decoder's part. A module that is not part of one of a coarser
    stride is preferred, and the part that makes the logits is left out where others have maps.

    Raises:
        SettingsError: no module gives a map of fewer cells than px.
    """
    order, found = _watch(name, network, side_px)
    read_logits(name, found)
    times = Counter(each for each, _, _ in order)
    times.update(each for each, module in network.named_modules() if isinstance(module, nn.Identity))
    shown = [
        (each, out, side_px // out.shape[-1])
        for each, out, version in order
        if times[each] == 1 and _is_map(out, side_px) and writes_of(out) == version
    ]
    stride_of = {each: stride for each, _, stride in shown}
    heads = {each.partition(".")[0] for each, out, _ in shown if out.shape[1] <= _CLASSES}
    maps = [each for each in shown if each[1].shape[1] > _CLASSES and each[2] >= _FINEST]
    maps = [each for each in maps if each[0].partition(".")[0] not in heads] or maps
    if not maps:
        raise SettingsError(
            f"{name}: no module gives a map that could be a level; name them: wrap_student(network, levels=...)"
        )
    coarsest = max(stride for _, _, stride in maps)
    outermost = min(each.count(".") for each, _, stride in maps if stride == coarsest)
    first = next(number for number, (each, _, s) in enumerate(maps) if s == coarsest and each.count(".") == outermost)
    rises = next((number for number, each in enumerate(maps) if number > first and each[2] < coarsest), len(maps))
    levels = {}
    for stride in sorted({each[2] for each in maps[:rises]}):
        ready = [each for each in maps[:rises] if each[2] == stride]
        inside = [sum(stride_of.get(outer, 0) > stride for outer in _parents(each)) for each, _, _ in ready]
        last = [each for each, depth in zip(ready, inside, strict=True) if depth == min(inside)][-1]
        levels[min((each for each, out, _ in ready if out is last[1]), key=lambda each: each.count("."))] = stride
    say(
        f"{name}: levels {', '.join(f'{each} (stride {stride})' for each, stride in levels.items())}; others by levels="
    )
    return levels


def _is_map(output: Any, side_px: int) -> bool:
    """Whether a module gives square maps (B, C, h, w) of at least 4 x 4 cells; fewer are what was pooled over the image."""
    square = isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] == output.shape[-2]
    return square and output.shape[-1] >= 4 and side_px % output.shape[-1] == 0


def _watch(name: str, network: nn.Module, side: int) -> tuple[list[tuple[str, Any, int]], Any]:
    """Return each module that ran on a grey image, its output and how often that had been written to; and what came out.

    Raises:
        SettingsError: the network fails on images of that size.
    """
    order: list[tuple[str, Any, int]] = []

    def note(module: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, inputs: Any, output: Any) -> None:
            order.append((module, output, writes_of(output) if isinstance(output, Tensor) else 0))

        return hook

    first = next(network.parameters(), torch.zeros(()))
    hooks = [module.register_forward_hook(note(each)) for each, module in network.named_modules() if each]
    try:
        with _resting(network), torch.no_grad():
            found = network(torch.zeros(1, 3, side, side, device=first.device, dtype=first.dtype))
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise SettingsError(
            f"{name} fails on a picture of {side} x {side} px ({' '.join(str(error).split())}); if it takes one size "
            "alone, give it as input_px"
        ) from error
    finally:
        for handle in hooks:
            handle.remove()
    return order, found


@contextmanager
def _resting(network: nn.Module) -> Iterator[None]:
    """Keep a network in evaluation mode while inside; each of its modules is as before afterwards."""
    before = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def _check_level(name: str, level: str, stride: int, side_px: int, runs: list[tuple[Any, int]]) -> None:
    if len(runs) != 1:
        raise SettingsError(
            f"{name}: module {level!r} runs {len(runs)} times in a forward pass; name one that runs once"
        )
    output, version = runs[0]
    if not isinstance(output, Tensor) or output.ndim != 4:
        raise SettingsError(f"{name}: level {level!r} gives {_describe(output)}; expected a map (B, C, h, w)")
    grid = tuple(output.shape[-2:])
    if grid != (side_px // stride, side_px // stride):
        measured = side_px // grid[0] if grid[0] == grid[1] and grid[0] and side_px % grid[0] == 0 else None
        hint = f"its stride is {measured}" if measured else f"found {_describe(output)}"
        raise SettingsError(
            f"{name}: level {level!r} has {grid[0]} x {grid[1]} cells for {side_px} px, not those of stride {stride}; {hint}"
        )
    if writes_of(output) != version:
        raise SettingsError(
            f"{name}: what follows level {level!r} writes into its output (an in-place activation?); name that module instead"
        )


def _check_triple(what: str, values: Sequence[float]) -> tuple[float, ...]:
    if len(values) != 3 or not all(isinstance(each, int | float) for each in values) or (what == "std" and 0 in values):
        raise SettingsError(
            f"{what} is three numbers, one a channel{', none 0' if what == 'std' else ''}; found {values!r}"
        )
    return tuple(float(each) for each in values)


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _describe(output: Any) -> str:
    return f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
