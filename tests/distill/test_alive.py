from difom_train.training import find_collapse, find_unexplained

START = {"distill/target_var/low": 0.8, "distill/student_var/z1": 0.2, "distill/explained/low": -3.0}


def test_a_variance_under_a_hundredth_of_its_start_is_a_collapse():
    now = {"distill/target_var/low": 0.0079, "distill/student_var/z1": 0.0021, "distill/explained/low": 0.0}
    lines = find_collapse(START, now)
    assert len(lines) == 1 and lines[0].startswith("distill/target_var/low collapsed from 0.8 to 0.0079")


def test_a_living_distillation_is_left_alone():
    assert find_collapse(START, {**START, "distill/target_var/low": 0.5}) == []


def test_a_target_of_which_nothing_was_ever_explained_is_named():
    later = {"distill/explained/low": 0.004, "distill/explained/a/x@16": -0.5}
    best = {"distill/explained/low": 0.3}
    assert [line.split()[0] for line in find_unexplained([START, later])] == [
        "distill/explained/low",
        "distill/explained/a/x@16",
    ]
    assert [line.split()[0] for line in find_unexplained([START, later, best])] == ["distill/explained/a/x@16"]
