"""Maps from a vision transformer of transformers: patch tokens after chosen blocks, or their keys, laid out as a grid."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import isqrt
from typing import Any

from torch import Tensor, nn

from difom_cache.teachers.base import Description, TapRequest, TeacherRequest, choose_variant, label_variant
from difom_cache.teachers.block_taps import block_number, block_taps, is_keys
from difom_cache.teachers.network import NetworkFacts, NetworkTeacher, TapNetwork, assemble
from difom_cache.teachers.preprocess import Triple, check_input_px
from difom_cache.teachers.transformers_weights import Family, count_parameters, load_part


class TokenTaps(TapNetwork):
    """A transformer read after chosen blocks: `block0` is the tokens after the first, `block0.keys` its keys.

    Args:
        model: runs `blocks` one after the other.
        blocks: the model's own list of blocks.
        norm: applied to the tokens of every tap; `nn.Identity()` for none.
        prefix_tokens: class and register tokens in front of the patches, which never enter the map.
        key_projection: gives that of a block; taps of keys go through no norm.
        call: further arguments of the model's forward.
    """

    def __init__(
        self,
        model: nn.Module,
        blocks: nn.ModuleList,
        norm: nn.Module,
        prefix_tokens: int,
        key_projection: Callable[[Any], nn.Module],
        call: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.blocks = blocks
        self.norm = norm
        self.prefix_tokens = prefix_tokens
        self.key_projection = key_projection
        self.call = dict(call or {})

    def keep(self, taps: tuple[str, ...]) -> None:
        """Give these taps from now on, and drop the blocks after the deepest."""
        super().keep(taps)
        deepest = max(block_number(tap) for tap in taps)
        del self.blocks[deepest + 1 :]

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the map (B, C, h, w) of each kept tap, of normalised pixels (B, 3, S, S)."""
        tokens: dict[str, Tensor] = {}
        with ExitStack() as hooks:  # the model's own `hidden_states` would hold every block's tokens to the end
            for tap in self.taps:
                block = self.blocks[block_number(tap)]
                place = self.key_projection(block) if is_keys(tap) else block
                hooks.enter_context(place.register_forward_hook(partial(_hold, tokens, tap)))
            self.model(pixels, **self.call)
        return {tap: self._as_map(tokens[tap] if is_keys(tap) else self.norm(tokens[tap])) for tap in self.taps}

    def _as_map(self, tokens: Tensor) -> Tensor:
        patches = tokens[:, self.prefix_tokens :]  # (B, h*w, C)
        side = isqrt(int(patches.shape[1]))
        return patches.transpose(1, 2).unflatten(2, (side, side))  # (B, C, h, w)


def _hold(
    tokens: dict[str, Tensor], tap: str, place: nn.Module, given: Any, output: Tensor | tuple[Tensor, ...]
) -> None:
    """Put a module's output down under `tap` (a hook; some releases of transformers give a tuple)."""
    tokens[tap] = output[0] if isinstance(output, tuple) else output


@dataclass(frozen=True)
class TokenFamily:
    """A teacher whose sizes are all plain vision transformers.

    Attributes:
        family: its sizes and where their weights come from.
        default_variant: where the user names none.
        input_px: variant to default input, where it is not the usual one.
        usual_input_px: default input of the others.
        mean: per channel.
        std: per channel.
        licence: of the weights.
        read: gives the network with taps of the library's model.
    """

    family: Family
    default_variant: str
    input_px: Mapping[str, int]
    usual_input_px: int
    mean: Triple
    std: Triple
    licence: str
    read: Callable[[Any], TokenTaps]


def build_tokens(tokens: TokenFamily, request: TeacherRequest) -> NetworkTeacher:
    """Return the vision transformer that `request` asks for as a teacher; inputs are multiples of its patch."""
    family = tokens.family
    variant = choose_variant(family.name, request.variant or tokens.default_variant, family.configs)
    input_px = request.input_px or tokens.input_px.get(variant, tokens.usual_input_px)
    check_input_px(input_px, family.configs[variant]().patch_size, f"{family.name}:{variant}")
    model, config, weights = load_part(family, variant, request.weights)
    facts = NetworkFacts(
        label=label_variant(family.name, variant, tokens.default_variant),
        name=family.name,
        variant=variant,
        input_px=input_px,
        mean=tokens.mean,
        std=tokens.std,
        native=block_taps(config.num_hidden_layers, config.hidden_size, config.patch_size),
        default_taps=default_token_taps(config.num_hidden_layers),
        packages=("transformers",),
        licence=tokens.licence,
        weights=weights,
        options={},
    )
    return assemble(request, facts, tokens.read(model))


def describe_tokens(tokens: TokenFamily) -> list[Description]:
    """Return what every variant of the family is, without loading any weights."""
    found = []
    for variant, make in tokens.family.configs.items():
        config = make()
        found.append(
            Description(
                name=tokens.family.name,
                variant=variant,
                is_default=variant == tokens.default_variant,
                parameters=count_parameters(tokens.family, variant),
                input_px=tokens.input_px.get(variant, tokens.usual_input_px),
                native=block_taps(config.num_hidden_layers, config.hidden_size, config.patch_size),
                default_taps=default_token_taps(config.num_hidden_layers),
                repository=tokens.family.repositories[variant],
                licence=tokens.licence,
            )
        )
    return found


def default_token_taps(depth: int) -> tuple[TapRequest, ...]:
    """Return the last block at stride 16 and the middle one at stride 32."""
    return TapRequest(f"block{depth - 1}", 16), TapRequest(f"block{depth // 2 - 1}", 32)
