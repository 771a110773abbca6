"""Maps become logits whatever they are; what they are is told by their range, and which output is the answer by masks."""

import numpy as np
import pytest
import torch

from difom_cache.errors import TeacherError
from difom_cache.teachers import Reading, as_maps, choose_output, tell_by_range


def maps(*values: float, channels: int = 1) -> list[np.ndarray]:
    """Return the map (channels, 1, n) of one frame."""
    return [np.array(values, dtype=np.float32).reshape(channels, 1, -1)]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ((-3.0, 0.2, 4.0), "logits"),
        ((-0.4, 0.1, 0.3), "logits"),
        ((0.0, 0.2, 1.0), "prob"),
        ((0.0, 0.0, 0.0), "prob"),
        ((-0.004, 0.5, 1.004), "prob"),  # what a resize leaves behind
        ((0.0, 31.5, 240.0), "prob255"),
        ((0.0, 1.0, 1.0), "mask"),
        ((0.0, 255.0, 255.0), "mask"),
        ((0.0, 1.0, 2.0), None),  # labels
        ((0.0, 3.0, 90.0), None),
        ((0.0, 300.0, 65535.0), None),
        ((0.0, 0.5, np.nan), None),
        ((-0.07, 0.5, 1.07), None),  # a cubic resize of probabilities, or logits of little range
        ((-18.0, 90.0, 270.0), None),
    ],
)
def test_a_map_is_what_its_range_can_only_be(values: tuple[float, ...], wanted: str | None) -> None:
    assert tell_by_range(maps(*values), None) == wanted


@pytest.mark.parametrize(
    ("values", "channel", "wanted"),
    [
        ((0.9, 0.2, 0.1, 0.8), None, "prob"),
        ((230.0, 51.0, 25.0, 204.0), None, "prob255"),
        ((0.9, 0.2, 0.3, 0.8), None, None),  # two sigmoids
        ((0.9, 0.2, 0.3, 0.8), 0, "prob"),
        ((-2.0, 1.0, 3.0, 0.5), None, "logits"),
        ((-2.0, 1.0, 3.0, 0.5), 1, "logits"),
        ((1.07, 0.5, -0.07, 0.5), None, None),
    ],
)
def test_probabilities_of_two_channels_add_up(
    values: tuple[float, ...], channel: int | None, wanted: str | None
) -> None:
    assert tell_by_range(maps(*values, channels=2), channel) == wanted


def test_one_frame_that_leaves_the_range_tells() -> None:
    assert tell_by_range([*maps(0.2, 0.9), *maps(-1.0, 0.9)], None) == "logits"


def test_logits_are_those_of_torch() -> None:
    values = torch.randn((2, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    single = Reading("x", "logits", None, "frames").to_logits(values[:, :1].numpy(), "x")
    np.testing.assert_array_equal(single, values[:, :1].float())
    for channel in (0, 2):
        wanted = torch.logit(values.softmax(1)[:, channel : channel + 1])
        for kind, given in (("logits", values), ("prob", values.softmax(1)), ("prob255", 255 * values.softmax(1))):
            found = Reading("x", kind, channel, "frames").to_logits(given.numpy(), "x")
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_sure_values_and_masks_become_finite_logits_alike_far_from_zero() -> None:
    sure = np.array([0.0, 1.0], dtype=np.float32).reshape(1, 1, 1, 2)
    for kind, top in (("prob", 1), ("prob255", 255), ("mask", 1), ("mask", 255)):
        none, polyp = Reading("x", kind, None, "frames").to_logits(sure * top, "x").ravel()
        assert none == pytest.approx(-polyp, rel=1e-6) and 16 < polyp < 17


@pytest.mark.parametrize(
    ("reading", "values"),
    [
        (Reading("out", "prob", None, "frames", (0.0, 0.9), 16), (0.1, 1.2)),
        (Reading("out", "prob", None, "FILE.json"), (-0.1, 0.5)),
        (Reading("out", "prob255", None, "frames", (0.0, 240.0), 16), (-9.0, 200.0)),
        (Reading("out", "mask", None, "frames", (0.0, 1.0), 16), (0.0, 2.0)),
        (Reading("out", "mask", None, "FILE.json"), (0.0, 0.4)),
        (Reading("out", "prob", None, "frames", (0.0, 0.9), 16), (0.1, np.nan)),
    ],
)
def test_a_map_that_leaves_its_range_stops(reading: Reading, values: tuple[float, ...]) -> None:
    with pytest.raises(
        TeacherError, match=r"net: output 'out' was read as .* FILE\.json beside the file decides.*values"
    ):
        reading.to_logits(maps(*values)[0][None], "net")


@pytest.mark.parametrize(
    ("shape", "batch", "wanted"),
    [
        ((2, 1, 8, 8), 2, (2, 1, 8, 8)),
        ((2, 8, 8, 3), 2, (2, 3, 8, 8)),
        ((2, 8, 8), 2, (2, 1, 8, 8)),
        ((8, 8), 1, (1, 1, 8, 8)),
        ((1, 8, 8), 1, (1, 1, 8, 8)),
        ((2, 8, 8), 1, (1, 2, 8, 8)),
        ((2, 16, 1, 1), 2, None),
        ((2, 8, 6), 2, None),
        ((3, 1, 8, 8), 2, None),
    ],
)
def test_maps_have_their_channels_second(shape: tuple[int, ...], batch: int, wanted: tuple[int, ...] | None) -> None:
    found = as_maps(np.zeros(shape), batch)
    assert (None if found is None else found.shape) == wanted


def test_channels_that_come_last_keep_their_places() -> None:
    values = np.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3)
    assert as_maps(values, 2)[1, 2, 3, 0] == values[1, 3, 0, 2]


TRUTH = np.zeros((16, 16), dtype=bool)
TRUTH[4:10, 5:12] = True
GOOD = np.where(TRUTH, 4.0, -4.0).astype(np.float32)
COARSE = np.full((4, 4), -4.0, dtype=np.float32)
COARSE[1:3, 1:3] = 1.0


@pytest.mark.parametrize("order", [["good", "coarse"], ["coarse", "good"]])
def test_of_outputs_that_differ_masks_tell_the_answer(order: list[str]) -> None:
    seen = {"good": [GOOD], "coarse": [COARSE]}
    assert choose_output({name: seen[name] for name in order}, [TRUTH], "net") == "good"


def test_an_output_that_falls_towards_the_masks_is_no_answer() -> None:
    assert choose_output({"background": [-GOOD], "coarse": [COARSE]}, [TRUTH], "net") == "coarse"


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ([None], "no frame with a polyp's mask"),
        ([~TRUTH & TRUTH], "no frame with a polyp's mask"),
        ([TRUTH.T], "do not tell"),
    ],
)
def test_outputs_that_nothing_tells_apart_are_refused_by_name(masks: list[np.ndarray | None], said: str) -> None:
    other = {"good": [GOOD], "mirrored": [GOOD[:, ::-1].copy()]} if masks[0] is None or not masks[0].any() else None
    with pytest.raises(TeacherError, match=rf'net: its outputs .*{said}.*"output"'):
        choose_output(other or {"one": [-GOOD], "two": [-COARSE]}, masks, "net")


def test_one_map_in_two_forms_is_the_first() -> None:
    assert choose_output({"prob": [GOOD], "sharp": [3 * GOOD]}, [None], "net") == "prob"


def test_empty_masks_do_not_make_outputs_alike() -> None:
    with pytest.raises(TeacherError, match="do not give the same masks"):
        choose_output({"one": [GOOD - 9], "two": [COARSE - 9]}, [None], "net")
