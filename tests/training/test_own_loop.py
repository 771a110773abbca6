"""The distiller by itself gives what a run's own gives, from what a student shows and a batch."""

import pytest
import torch
from memory_cache import MemoryCache

from difom_cache.errors import SettingsError
from difom_cache.store import TapSpec
from difom_train import LoopDistiller, build_distiller, build_student, read_recipe
from difom_train.config import DistillConfig
from difom_train.distill import build_distiller as build_part

TAPS = {
    name: TapSpec(name, kind, channels, 32 // stride, stride, "float16")
    for name, kind, channels, stride in [
        ("a/deep@16", "feature", 6, 16),
        ("a/fine@8", "feature", 5, 8),
        ("b/logits@2", "logits", 1, 2),
    ]
}


@pytest.fixture(scope="module")
def cache():
    return MemoryCache(records=20, views=2, picture_px=32, taps=TAPS, unlabelled=4)


@pytest.fixture(scope="module")
def batch(cache):
    return {key: torch.from_numpy(value) for key, value in cache.gather(range(8)).items()}


@pytest.fixture(scope="module")
def pictures(batch):
    return batch["image"].permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize(("kind", "neck"), [("multiscale", None), ("difom", "residual"), ("paper", "paper")])
def test_terms_are_those_of_a_run_weighted_and_averaged(cache, batch, pictures, kind, neck):
    options = DistillConfig(kind=kind, feature_weight=0.5, low_weight=2.0)
    student = build_student("unet", width=2, neck=neck, seed=0)
    distiller = build_distiller(options, cache, student, seed=3)
    part = build_part(options, cache=cache, student=student, input_px=32, seed=3)
    part.load_state_dict(distiller.part.state_dict())
    shown = student.forward_train(pictures)
    terms = distiller(shown, batch)
    expected = part.terms(shown, part.targets(batch), batch["valid"])
    assert set(terms) == set(distiller.weights) == set(expected)
    for name, term in terms.items():
        torch.testing.assert_close(term, part.weights[name] * expected[name].mean())
    sum(terms.values()).backward()
    assert all(each.grad is not None for each in distiller.parameters())


def test_logits_are_calibrated_from_the_caches_masks_when_it_is_built(cache):
    student = build_student("unet", width=2, seed=0)
    distiller = build_distiller("difom-multiscale", cache, student)
    assert isinstance(distiller, LoopDistiller) and not distiller.part.needs_calibration
    assert distiller.taps == tuple(TAPS)
    assert any("b/logits@2" in line for line in distiller.describe())


def test_levels_by_name_and_decoded_features_give_the_same_terms(cache, batch, pictures):
    student = build_student("unet", width=2, seed=0)
    distiller = build_distiller(read_recipe("difom-multiscale"), cache, student)
    shown = student.forward_train(pictures)
    expected = distiller(shown, batch)
    by_name = {**shown.levels, "logits": shown.logits[0]}
    features = {tap: cache.decode(tap, batch[f"{tap}/code"]) for tap in distiller.taps}
    for terms in (distiller(by_name, batch), distiller(shown, features | {"valid": batch["valid"]})):
        assert all(torch.equal(terms[name], expected[name]) for name in expected)
    with pytest.raises(SettingsError, match="levels lack 'encoder2'"):
        distiller({name: each for name, each in by_name.items() if name != "encoder2"}, batch)
    with pytest.raises(SettingsError, match=r"lacks the tap a/fine@8; read it with taps=distiller\.taps"):
        distiller(shown, {"a/deep@16": features["a/deep@16"]})


@pytest.mark.parametrize(
    ("config", "neck", "message"),
    [
        ("baseline", None, "'none' distils nothing"),
        ("mean-teacher", None, "'mean_teacher' learns from its own averaged weights"),
        ("difom", None, "needs a student with neck 'residual', found None"),
        ("multiscael", None, "no recipe 'multiscael'"),
    ],
)
def test_what_cannot_distil_is_one_line(cache, config, neck, message):
    with pytest.raises(SettingsError, match=message):
        build_distiller(config, cache, build_student("unet", width=2, neck=neck, seed=0))
