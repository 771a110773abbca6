"""A distillation that dies is found, said once, and stays marked."""

from difom_train.training import Progress, detect_collapse, find_unexplained


def figures(target=1.0, student=1.0, explained=0.5):
    return {"distill/target_var/low": target, "distill/student_var/z1": student, "distill/explained/low": explained}


def test_living_distillation_says_nothing():
    progress = Progress(first_alive=figures())
    assert all(detect_collapse(progress, figures(), epochs=10) == [] for _ in range(10))
    assert progress.warnings == []


def test_collapsed_target_is_said_once_and_stays_marked():
    progress = Progress(first_alive=figures(target=0.2))
    (line,) = detect_collapse(progress, figures(target=0.0019), epochs=10)
    assert line.startswith("distill/target_var/low collapsed from 0.2 to 0.0019")
    assert detect_collapse(progress, figures(target=0.001), epochs=10) == []
    assert detect_collapse(progress, figures(target=0.2), epochs=10) == []
    assert len(progress.warnings) == 1


def test_target_above_one_per_cent_of_its_start_is_alive():
    assert detect_collapse(Progress(first_alive=figures(target=0.2)), figures(target=0.0021), epochs=10) == []


def test_explained_fraction_at_zero_is_young_for_three_epochs_then_dead():
    progress = Progress(first_alive=figures())
    said = [detect_collapse(progress, figures(explained=0.0), epochs=10) for _ in range(4)]
    assert [len(lines) for lines in said] == [0, 0, 1, 0]


def test_explained_fraction_that_rises_late_clears_the_mark():
    progress = Progress(first_alive=figures())
    for _ in range(3):
        detect_collapse(progress, figures(explained=0.0), epochs=10)
    assert progress.warnings
    detect_collapse(progress, figures(explained=0.2), epochs=10)
    assert progress.warnings == []


def test_long_runs_are_young_for_a_tenth_of_their_epochs():
    progress = Progress(first_alive=figures())
    assert all(detect_collapse(progress, figures(explained=0.0), epochs=100) == [] for _ in range(9))
    assert detect_collapse(progress, figures(explained=0.0), epochs=100)


def test_epoch_without_distillation_leaves_no_figures():
    progress = Progress()
    assert detect_collapse(progress, {}, epochs=3) == [] and progress.alive == []


def test_a_target_whose_direction_is_found_is_alive_though_its_scale_is_not():
    history = [
        {"distill/explained/a/x@16": -0.2, "distill/explained/a/x@16:decoder1": -0.3, "distill/cosine/a/x@16": 0.4}
    ]
    assert find_unexplained(history) == []
    assert len(find_unexplained([history[0] | {"distill/cosine/a/x@16": 0.05}])) == 2


def test_a_target_whose_cosine_rises_is_not_dead_however_low_it_began():
    key = "distill/explained/sam/block7@8"
    rising = [{key: -0.01, "distill/cosine/sam/block7@8": cosine} for cosine in (-0.204, -0.18, -0.108)]
    assert find_unexplained(rising) == []
    assert [line.split()[0] for line in find_unexplained([rising[0], *rising[::-1]])] == [key]


def test_a_teachers_logits_are_not_called_unexplained():
    history = [{"distill/explained/onnx/logits@2": -2.0, "distill/explained/onnx/block@16": -0.1}] * 3
    assert [line.split()[0] for line in find_unexplained(history)] == ["distill/explained/onnx/block@16"]


def test_a_term_that_stays_at_zero_is_said_once():
    progress = Progress()
    said = [detect_collapse(progress, {"distill/term/consistency": 0.00004}, epochs=10) for _ in range(4)]
    assert [len(lines) for lines in said] == [0, 0, 1, 0] and "consistency has stayed at zero" in said[2][0]
    assert (
        detect_collapse(Progress(), {"distill/term/consistency": 0.0}, epochs=1) != []
    )  # a run of one epoch is told as well
    progress = Progress()
    assert all(detect_collapse(progress, {"distill/term/logits": 0.2}, epochs=10) == [] for _ in range(4))
