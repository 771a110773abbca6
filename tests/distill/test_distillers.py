"""What each kind of distillation does, on a cache in memory whose features follow from the pictures."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from memory_cache import MemoryCache

from difom_cache import ViewParams
from difom_cache.base.options import validate
from difom_cache.errors import CacheIncompleteError, SettingsError
from difom_cache.store import TapSpec
from difom_cache.teachers import area_pool
from difom_cache.views import locate_fresh
from difom_train import build_student
from difom_train.config import DistillConfig
from difom_train.distill import FIRST_ROUND, Match, build_distiller, mean_over_teachers, share_channels, split_bands
from difom_train.students import StudentOutput
from difom_train.training import find_collapse

PICTURE_PX = 64
TAPS = {
    name: TapSpec(name, kind, channels, PICTURE_PX // stride, stride, "float16")
    for name, kind, channels, stride in [
        ("a/deep@16", "feature", 6, 16),
        ("a/fine@8", "feature", 5, 8),
        ("b/deep@16", "feature", 4, 16),
        ("b/logits@2", "logits", 1, 2),
    ]
}


@pytest.fixture(scope="module")
def cache():
    return MemoryCache(records=20, views=2, picture_px=PICTURE_PX, taps=TAPS)


@pytest.fixture(scope="module")
def batch(cache):
    return {key: torch.from_numpy(value) for key, value in cache.gather(range(8)).items()}


@pytest.fixture(scope="module")
def pictures(batch):
    return batch["image"].permute(0, 3, 1, 2).float() / 255


def build(cache, kind, *, seed=0, **options):
    student = build_student("unet", width=2, neck=DistillConfig(kind=kind).neck, seed=seed)
    settings = DistillConfig(kind=kind, **options)
    distiller = build_distiller(settings, cache=cache, student=student, input_px=PICTURE_PX, seed=seed)
    return student, distiller


def calibrated(distiller, batch):
    if distiller.needs_calibration:
        distiller.calibrate([batch])
    return distiller


@pytest.fixture
def small_notebook_grid(monkeypatch):
    """The notebook's 64 x 64 Fourier transforms of 256 channels are slow; 16 x 16 show the same."""
    monkeypatch.setattr("difom_train.distill.published.NOTEBOOK_GRID", 16)


@pytest.mark.usefixtures("small_notebook_grid")
@pytest.mark.parametrize("kind", ["none", "difom", "paper", "published", "multiscale"])
class TestEveryKind:
    def test_terms_are_one_number_a_picture_under_the_weights_names(self, kind, cache, batch, pictures):
        student, distiller = build(cache, kind, bands=True)
        targets = calibrated(distiller, batch).targets({k: batch[k] for k in batch if k.startswith(distiller.taps)})
        terms = distiller(student.forward_train(pictures), targets, batch["valid"])
        assert set(terms) == set(distiller.weights) and (kind == "none") == (terms == {})
        assert all(term.shape == (8,) and term.isfinite().all() and (term >= 0).all() for term in terms.values())

    def test_what_a_picture_costs_does_not_depend_on_its_batch(self, kind, cache, batch, pictures):
        student, distiller = build(cache, kind, bands=True)
        student.eval()
        calibrated(distiller, batch)
        with torch.no_grad():
            together = distiller(student.forward_train(pictures), distiller.targets(batch), batch["valid"])
            first = {key: value[:1] for key, value in batch.items()}
            alone = distiller(student.forward_train(pictures[:1]), distiller.targets(first), first["valid"])
        for name, term in together.items():
            torch.testing.assert_close(alone[name], term[:1], rtol=1e-4, atol=1e-5)

    def test_targets_need_no_gradient_and_nothing_on_their_side_is_trained(self, kind, cache, batch):
        _, distiller = build(cache, kind)
        targets = calibrated(distiller, batch).targets(batch)
        assert not any(target.requires_grad for target in targets.values())
        trained = {name.partition(".")[0] for name, _ in distiller.named_parameters()}
        assert trained == {"multiscale": {"heads"}, "published": {"fuse", "branch"}}.get(kind, set())

    def test_a_whole_valid_area_is_the_same_as_none(self, kind, cache, batch, pictures):
        student, distiller = build(cache, kind, bands=True)
        output, targets = student.forward_train(pictures), calibrated(distiller, batch).targets(batch)
        with_area, without = distiller(output, targets, batch["valid"]), distiller(output, targets, None)
        for name, term in with_area.items():
            torch.testing.assert_close(term, without[name])

    def test_numbers_for_the_log_are_finite(self, kind, cache, batch, pictures):
        student, distiller = build(cache, kind)
        targets = calibrated(distiller, batch).targets(batch)
        logged = distiller.summarise(distiller.measure(student.forward_train(pictures), targets, None))
        assert all(math.isfinite(value) for value in logged.values())
        words = {key.split("/")[1] for key in logged}
        assert words == (set() if kind == "none" else {"target_var", "student_var", "cosine", "explained"})
        assert distiller.describe()[0].startswith("distillation: ")

    def test_multi_scale_input_meets_the_same_targets(self, kind, cache, batch, pictures):
        student, distiller = build(cache, kind)
        targets = calibrated(distiller, batch).targets(batch)
        for side in (48, 80):
            resized = torch.nn.functional.interpolate(pictures, size=(side, side), mode="bilinear")
            terms = distiller(student.forward_train(resized), targets, batch["valid"])
            assert all(term.isfinite().all() for term in terms.values())

    def test_a_copy_through_its_state_gives_the_same_terms(self, kind, cache, batch, pictures):
        student, distiller = build(cache, kind)
        output = student.forward_train(pictures)
        expected = calibrated(distiller, batch)(output, distiller.targets(batch), None)
        _, other = build(cache, kind, seed=1)
        other.load_state_dict(copy.deepcopy(distiller.state_dict()))
        assert not other.needs_calibration
        terms = other(output, other.targets(batch), None)
        assert all(torch.equal(terms[name], expected[name]) for name in expected)


def test_multiscales_feature_term_is_its_formula_written_out(cache, batch, pictures):
    """Decoded whole, pooled, projected and compared pair by pair with PyTorch's own functions."""
    student, distiller = build(cache, "multiscale")
    output = student.forward_train(pictures[..., :32, :32])
    with torch.no_grad():
        found = calibrated(distiller, batch).terms(output, distiller.targets(batch), None)["feature"]
        pairs = {"a": [], "b": []}
        for match, head in zip(distiller.matches, distiller.heads, strict=True):
            frozen = distiller.projections[distiller.feature_taps.index(match.tap)]
            feature, level = cache.decode(match.tap, batch[f"{match.tap}/code"]), output.levels[match.level]
            grid = min(feature.shape[-1], level.shape[-1])
            target = torch.conv2d(area_pool(feature, grid) - frozen.mean, frozen.matrix)
            own = head(area_pool(level, grid))
            cosine = torch.nn.functional.cosine_similarity(own, target, dim=1)
            smooth = torch.nn.functional.smooth_l1_loss(own, target, reduction="none")
            loss = 0.9 * (1 - cosine).mean(dim=(1, 2)) + 0.1 * smooth.mean(dim=(1, 2, 3))
            pairs[match.tap[0]].append(loss)
    expected = torch.stack([torch.stack(each).mean(dim=0) for each in pairs.values()]).mean(dim=0)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def fine_cache():
    """A bottleneck of 12 cells at 192 px: the smallest that has bands."""
    taps = {f"{label}/deep@16": TapSpec(f"{label}/deep@16", "feature", 4, 12, 16, "float16") for label in "ab"}
    return MemoryCache(records=10, views=1, picture_px=192, taps=taps)


def test_difom_is_met_exactly_by_the_two_bands(fine_cache):
    """The high band is held to in direction alone, so that half of it is as good an answer."""
    student = build_student("unet", width=2, neck="residual", seed=0)
    options = DistillConfig(kind="difom", channels=8)
    distiller = build_distiller(options, cache=fine_cache, student=student, input_px=192)
    batch = {key: torch.from_numpy(value) for key, value in fine_cache.gather(range(8)).items()}
    targets = distiller.targets(batch)
    low, high = split_bands(targets["fused"], low_cycles=2)  # (8, 8, 12, 12)
    free = torch.randn(8, 256 - 8, 12, 12)
    for share in (1.0, 0.5):
        output = StudentOutput([], {}, {"z1": torch.cat([low, free], 1), "z2": torch.cat([share * high, free], 1)})
        terms = distiller(output, targets, None)
        torch.testing.assert_close(terms, {"low": torch.zeros(8), "high": torch.zeros(8)}, atol=1e-5, rtol=0)
    weak = StudentOutput([], {}, {"z1": torch.cat([low / 2, free], 1), "z2": torch.cat([high, free], 1)})
    assert (distiller(weak, targets, None)["low"] > 0.001).all()
    output = StudentOutput([], {}, {"z1": torch.cat([low, free], 1), "z2": torch.cat([high, free], 1)})
    logged = distiller.summarise(distiller.measure(output, targets, None))
    assert logged["distill/explained/a/deep@16"] == pytest.approx(1) == logged["distill/explained/high"]
    assert "12 x 12 cells, low band up to 2 cycles per picture" in distiller.describe()[0]


def test_difom_compares_a_map_of_few_cells_whole_and_says_so(cache, batch):
    _, distiller = build(cache, "difom", channels=8)
    targets = distiller.targets(batch)
    z1 = torch.randn(8, 256, 4, 4)
    z2 = torch.cat([targets["fused"], torch.zeros(8, 248, 4, 4)], 1) - z1
    output = StudentOutput([], {}, {"z1": z1, "z2": z2})
    assert distiller.weights == {"whole": 0.2}
    torch.testing.assert_close(distiller(output, targets, None), {"whole": torch.zeros(8)}, atol=1e-5, rtol=0)
    logged = distiller.summarise(distiller.measure(output, targets, None))
    assert logged["distill/explained/a/deep@16"] == pytest.approx(1) and "distill/explained/low" not in logged
    assert "4 x 4 cells, compared whole: there are bands from 12 x 12 cells on" in distiller.describe()[0]


def test_channels_of_difoms_target_have_one_variance_where_the_papers_first_have_most(cache):
    every = {key: torch.from_numpy(value) for key, value in cache.gather(range(32)).items()}
    spread = {}
    for kind in ("difom", "paper"):
        variances = build(cache, kind, channels=8)[1].targets(every)["fused"].var(dim=(0, 2, 3))
        spread[kind] = variances.max() / variances.min()
    assert spread["difom"] < 1.5 and spread["paper"] > 10


def test_channels_are_shared_equally_by_teachers_then_by_their_taps():
    matches = [Match("a/x@16", "bottleneck", 4), Match("a/y@16", "bottleneck", 4), Match("b/z@16", "bottleneck", 4)]
    assert share_channels(matches, 256) == [64, 64, 128]
    with pytest.raises(SettingsError, match=r"distill\.channels = 3 is too few for 3 taps"):
        share_channels(matches, 3)


def test_a_student_without_the_neck_is_refused(cache):
    student = build_student("unet", width=2)
    with pytest.raises(SettingsError, match="needs a student with neck 'residual', found None"):
        build_distiller(DistillConfig(kind="difom"), cache=cache, student=student, input_px=PICTURE_PX)


def test_teachers_count_equally_however_many_taps_they_have():
    losses = [("a/x", torch.tensor([1.0])), ("a/y", torch.tensor([3.0])), ("b/z", torch.tensor([10.0]))]
    assert mean_over_teachers(losses).tolist() == [6.0]


def test_multiscale_learns_from_what_is_weighted(cache, batch, pictures):
    _, distiller = build(cache, "multiscale")
    assert distiller.taps == ("a/deep@16", "a/fine@8", "b/deep@16", "b/logits@2")
    assert distiller.weights == {"feature": 1.0, "logits": 1.0}
    _, features_only = build(cache, "multiscale", logits_weight=0.0)
    assert "b/logits@2" not in features_only.taps and not features_only.needs_calibration
    _, logits_only = build(cache, "multiscale", feature_weight=0.0)
    assert logits_only.taps == ("b/logits@2",) and list(logits_only.parameters()) == []
    student, related = build(cache, "multiscale", feature_weight=0.0, relation_weight=2.0, logits_weight=0.0)
    assert related.weights == {"relation": 2.0} and related.taps == features_only.taps
    terms = related(student.forward_train(pictures), related.targets(batch), batch["valid"])
    assert list(terms) == ["relation"] and (terms["relation"] > 0).all()
    with pytest.raises(CacheIncompleteError, match=r"no tap can teach unet: with feature_weight 0 .*difom-cache probe"):
        build(cache, "multiscale", feature_weight=0.0, teachers=("a",))


def test_calibration_makes_the_teachers_mask_the_best_answer(cache, batch):
    """The painted tap is far from a logit of the disc; two numbers bring it as near as they can."""
    _, distiller = build(cache, "multiscale", feature_weight=0.0)
    distiller.calibrate([batch])
    prob = distiller.targets(batch)["b/logits@2"]
    mask = torch.nn.functional.avg_pool2d(batch["mask"].float().unsqueeze(1), 2)
    guess = mask.mean()
    entropy = torch.nn.functional.binary_cross_entropy(prob, mask)
    assert entropy < 0.9 * -(guess * guess.log() + (1 - guess) * (1 - guess).log())
    assert prob.mean().item() == pytest.approx(guess.item(), abs=0.02)


@pytest.mark.parametrize("name", ["probe", "student"])
def test_probes_and_students_teach_the_masks_that_they_give(batch, name):
    """Platt's two numbers, fitted to fourteen masks, made the masks of a probe and a student a third smaller than true ones."""
    cache = MemoryCache(records=20, views=2, picture_px=PICTURE_PX, taps=TAPS)
    held = cache.teachers["b"]
    own = SimpleNamespace(probe="probe" if name == "probe" else None, teacher=SimpleNamespace(name=name))
    cache.teachers = cache.teachers | {"b": own}
    _, distiller = build(cache, "multiscale", feature_weight=0.0)
    assert not distiller.needs_calibration
    logits = torch.from_numpy(cache.gather(range(8))["b/logits@2/code"]).float()
    torch.testing.assert_close(distiller.targets(batch)["b/logits@2"], logits.sigmoid())
    cache.teachers = cache.teachers | {"b": held}
    assert build(cache, "multiscale", feature_weight=0.0)[1].needs_calibration, "of any other network nobody knows"


def test_of_a_fresh_view_warped_logits_teach_and_features_do_not(cache, batch, pictures):
    """Every other picture is a left-right flip that no teacher has seen: its logits are those of view 0, flipped."""
    flip = ViewParams(top=0, left=0, height=PICTURE_PX, width=PICTURE_PX, flip_h=True)
    fresh = locate_fresh([(flip, (PICTURE_PX, PICTURE_PX)) if place % 2 == 0 else None for place in range(8)])
    student, distiller = build(cache, "multiscale")
    plain = calibrated(distiller, batch).targets(batch)
    targets = distiller.targets(batch | {"fresh": fresh})
    expected = plain["b/logits@2"].clone()
    expected[::2] = expected[::2].flip(-1)
    torch.testing.assert_close(targets["b/logits@2"], expected)
    output = student.forward_train(pictures)
    terms, with_features = distiller(output, targets, None), distiller(output, plain, None)
    # Half of the batch counts, so that the mean over the batch is the mean over that half.
    assert (terms["feature"][::2] == 0).all()
    torch.testing.assert_close(terms["feature"][1::2], 2 * with_features["feature"][1::2])
    student, difom = build(cache, "difom")
    whole = difom(student.forward_train(pictures), difom.targets(batch | {"fresh": fresh}), batch["valid"])["whole"]
    assert (whole[::2] == 0).all() and (whole[1::2] > 0).all()


def test_the_teachers_masks_teach_pictures_without_a_mask_alone(cache, batch, pictures):
    student, distiller = build(cache, "multiscale", learn="masks")
    calibrated(distiller, batch)
    with torch.no_grad():
        output = student.forward_train(pictures)
    everyone = distiller(output, distiller.targets(batch), None)["logits"]
    labelled = torch.tensor([True, True, True, False, True, False, True, True])
    some = distiller(output, distiller.targets(batch | {"labelled": labelled}), None)["logits"]
    assert (some[labelled] == 0).all()
    assert float(some.mean()) == pytest.approx(float(everyone[~labelled].mean()))
    none = distiller(output, distiller.targets(batch | {"labelled": torch.ones(8, dtype=torch.bool)}), None)["logits"]
    assert (none == 0).all()


def test_two_teachers_masks_are_one_at_the_students_resolution_and_weigh_as_far_as_it_is_sure():
    """Worked by hand on one cell: .9 and .7 make .8, which weighs (2 * .8 - 1)^2; .9 and .1 make .5, which weighs nothing."""
    taps = {f"{name}/logits@32": TapSpec(f"{name}/logits@32", "logits", 1, 2, 32, "float16") for name in "ab"}
    small = MemoryCache(records=10, views=1, picture_px=PICTURE_PX, taps=taps)
    _, distiller = build(small, "multiscale")
    first, second = torch.full((1, 1, 2, 2), 0.9), torch.tensor([[[[0.7, 0.7], [0.1, 0.1]]]])
    logits = torch.zeros(1, 1, 64, 64)
    output = StudentOutput(logits=[logits], levels={}, neck={})
    found = distiller.mask_error(output, {"a/logits@32": first, "b/logits@32": second}, None)
    _, of_two = build(small, "multiscale", rounds=2)  # the first round's is one of them
    assert torch.equal(of_two.mask_error(output, {"a/logits@32": first, FIRST_ROUND: second}, None), found)
    second = torch.nn.functional.interpolate(second.logit(), (64, 64), mode="bilinear").sigmoid()
    mean = (0.9 + second) / 2
    sure = (2 * mean - 1) ** 2
    assert float(sure[0, 0, 0, 0]) == pytest.approx(0.36) and float(sure[0, 0, -1, 0]) == pytest.approx(0, abs=1e-9)
    divergence = (mean * (mean / 0.5).log() + (1 - mean) * ((1 - mean) / 0.5).log()) * sure
    dice = (2 * (0.5 * mean * sure).sum() + 1) / (((0.25 + mean**2) * sure).sum() + 1)
    assert float(found) == pytest.approx(float(divergence.sum() / sure.sum() + 1 - dice), rel=1e-5)


class BranchStudent(torch.nn.Module):
    """A bottleneck that holds both bands of the target, linearly mixed, and the neck above it: nothing else to learn."""

    def __init__(self, student, distiller, batch):
        super().__init__()
        self.neck = student.neck
        channels = student.levels["bottleneck"].channels
        bands = torch.cat(split_bands(distiller.targets(batch)["fused"]), dim=1)
        mixing = torch.randn(channels, bands.shape[1], generator=torch.Generator().manual_seed(0))
        self.bottleneck = torch.einsum("ck,bkhw->bchw", mixing, bands) / 4

    def forward(self):
        _, shown = self.neck(self.bottleneck)
        return StudentOutput([], {"bottleneck": self.bottleneck}, shown)


def descend(forward, parameters, distiller, batch, *, steps, rate):
    """Train by the distillation terms alone; return what is logged before and after."""
    optimiser = torch.optim.Adam([*parameters, *distiller.parameters()], lr=rate)
    logs = []
    for step in range(steps + 1):
        output, targets = forward(), distiller.targets(batch)
        if step in (0, steps):
            logs.append(distiller.summarise(distiller.measure(output, targets, None)))
        optimiser.zero_grad()
        sum(term.mean() for term in distiller(output, targets, None).values()).backward()
        optimiser.step()
    return logs


def learn_by_neck(cache, batch, kind):
    student = build_student("unet", width=2, neck=DistillConfig(kind=kind).neck, seed=0)
    settings = DistillConfig(kind=kind, channels=8)
    distiller = build_distiller(settings, cache=cache, student=student, input_px=PICTURE_PX)
    branch = BranchStudent(student, distiller, batch)
    return descend(branch, branch.parameters(), distiller, batch, steps=150, rate=3e-2)


def test_difom_lives_its_target_constant_and_all_of_it_within_reach(cache, batch):
    first, last = learn_by_neck(cache, batch, "difom")
    for what in ("a/deep@16", "b/deep@16"):
        assert last[f"distill/target_var/{what}"] == first[f"distill/target_var/{what}"]
        assert last[f"distill/explained/{what}"] > 0.99, what
    assert find_collapse(first, last) == []


def test_the_papers_relu_cannot_reach_a_low_band_of_both_signs(cache, batch):
    _, last = learn_by_neck(cache, batch, "paper")
    assert last["distill/explained/low"] < 0.5


def test_published_collapses_while_its_loss_looks_good(cache, batch, pictures, monkeypatch):
    monkeypatch.setattr("difom_train.distill.published.NOTEBOOK_GRID", 8)
    student, distiller = build(cache, "published")
    with torch.no_grad():
        output = student.eval().forward_train(pictures[:2])
    few = {key: value[:2] for key, value in batch.items()}
    first, last = descend(lambda: output, [], distiller, few, steps=100, rate=2e-2)
    assert last["distill/target_var/low"] < 0.01 * first["distill/target_var/low"]
    assert any(line.startswith("distill/target_var/low collapsed") for line in find_collapse(first, last))
    assert distiller(output, distiller.targets(few), None)["low"].mean() < 1e-2


@pytest.mark.usefixtures("small_notebook_grid")
def test_published_reaches_nothing_that_the_decoder_uses(cache, batch, pictures):
    student, distiller = build(cache, "published")
    terms = distiller(student.forward_train(pictures), distiller.targets(batch), None)
    sum(term.mean() for term in terms.values()).backward()
    assert all(parameter.grad is None for parameter in student.decoder.parameters())


def test_multiscale_lives_at_every_level(cache, batch, pictures):
    student, distiller = build(cache, "multiscale")
    calibrated(distiller, batch)
    first, last = descend(
        lambda: student.forward_train(pictures), student.parameters(), distiller, batch, steps=40, rate=3e-2
    )
    explained = {key: value for key, value in last.items() if key.startswith("distill/explained/")}
    assert min(explained.values()) > 0.1, explained
    assert find_collapse(first, last) == []


def test_what_lies_outside_the_frame_teaches_nothing(cache, batch, pictures):
    """Features outside may be anything: with a valid area the terms do not see them."""
    valid = batch["valid"].clone()
    valid[:, :, 48:] = 0
    changed = {key: value.clone() for key, value in batch.items()}
    for tap, spec in TAPS.items():
        changed[f"{tap}/code"][..., spec.grid * 3 // 4 :] = 50.0
    for kind in ("difom", "multiscale"):
        student, distiller = build(cache, kind, bands=True)
        calibrated(distiller, batch)
        output = student.forward_train(pictures)
        expected = distiller(output, distiller.targets(batch), valid)
        terms = distiller(output, distiller.targets(changed), valid)
        for name, term in terms.items():
            torch.testing.assert_close(term, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("small_notebook_grid")
@pytest.mark.parametrize("kind", ["difom", "published", "multiscale"])
def test_a_bfloat16_context_changes_no_target_and_of_the_terms_what_heads_round(cache, batch, pictures, kind):
    student, distiller = build(cache, kind, bands=True, relation_weight=1.0)
    calibrated(distiller, batch)
    output, targets = student.forward_train(pictures), distiller.targets(batch)
    expected = distiller(output, targets, None)
    with torch.autocast("cpu", torch.bfloat16):
        again = distiller.targets(batch)
        terms = distiller(output, again, None)
    assert all(torch.equal(again[name], targets[name]) for name in targets)
    rounded = {"feature", "relation", "low", "high"} if kind == "multiscale" else set()
    for name in expected:
        assert terms[name].dtype == torch.float32
        assert torch.equal(terms[name], expected[name]) == (name not in rounded)
        torch.testing.assert_close(terms[name], expected[name], rtol=5e-3, atol=0)


def test_heads_compute_in_bfloat16_where_the_student_does_and_learn_the_same(cache, batch, pictures):
    student, distiller = build(cache, "multiscale", relation_weight=1.0, logits_weight=0.0)
    targets = distiller.targets(batch)
    gradients = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = student.forward_train(pictures)
            terms = distiller(output, targets, batch["valid"])
        assert output.levels["encoder4"].dtype == (torch.bfloat16 if enabled else torch.float32)
        weights = list(distiller.heads.parameters())
        gradients.append(
            torch.cat([each.flatten() for each in torch.autograd.grad(sum(terms.values()).sum(), weights)])
        )
    outside = distiller(output, targets, batch["valid"])  # what a bfloat16 student gave, compared where no autocast is
    torch.testing.assert_close(outside, terms, rtol=5e-3, atol=0)
    assert not torch.equal(*gradients)
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.999


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "diffom"}, "did you mean 'difom'"),
        ({"low_weight": -1.0}, "low_weight is -1.0; it must be at least 0"),
        ({"channels": 0}, "channels is 0; it must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(SettingsError, match=message):
        validate(DistillConfig, options)
