import shutil

import pytest
import torch

import difom_cache
from difom_cache import build_teacher
from difom_cache.teachers import NativeTap, TapRequest, Weights


def test_a_teacher_is_frozen_and_in_evaluation():
    teacher = build_teacher("dinov2:tiny", weights="random")
    assert not teacher.network.training and not any(p.requires_grad for p in teacher.network.parameters())
    assert teacher.to("cpu") is teacher


def test_features_of_pixels_that_want_gradients_want_none():
    teacher = build_teacher("dinov2:tiny", weights="random")
    pixels = torch.rand(1, 3, 308, 308, requires_grad=True)
    assert not any(feature.requires_grad for feature in teacher.features(pixels).values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what the compiler imports
def test_a_compiled_teacher_says_so_and_gives_the_same_features():
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on the CPU")
    plain = build_teacher("dinov2:tiny", weights="random")
    compiled = build_teacher("dinov2:tiny", weights="random", compile=True)
    assert compiled.spec.identity()["options"] == {"compile": True} and plain.spec.identity()["options"] == {}
    pixels = torch.rand(2, 3, 308, 308)
    for name, feature in plain.features(pixels).items():
        torch.testing.assert_close(compiled.features(pixels)[name], feature, atol=1e-4, rtol=1e-4)


def test_a_builder_of_the_release_before_still_describes_its_network():
    with pytest.warns(DeprecationWarning, match="NetworkFacts is difom_cache"):
        facts = difom_cache.NetworkFacts
    spec = facts(
        **{"label": "old", "name": "old", "variant": "", "input_px": 64, "mean": (0.0,) * 3, "std": (1.0,) * 3},
        **{"native": {"map": NativeTap("map", 3, 8)}, "default_taps": (TapRequest("map", 8),), "packages": ("numpy",)},
        **{"licence": "", "weights": Weights("file", "0" * 64), "options": {}},
    )
    assert spec.taps == (TapRequest("map", 8),) and set(spec.libraries) == {"numpy"}
    assert spec.weights_digest == "0" * 64 and spec.interpolation == "bilinear"
