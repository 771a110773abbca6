"""The answer of `bench all` as Markdown."""

from collections.abc import Sequence
from typing import Any

from difom_cache import format_seconds


def format_suite(facts: dict[str, Any]) -> str:
    """Return the tables of what `bench_all` found; a part that found nothing stands in the last one, with the reason."""
    parts, hardware = facts["parts"], facts["about"]["hardware"]
    answers = {name: part["answer"] for name, part in parts.items() if part["answer"]}
    machine = hardware.get("gpu") or f"{hardware['cpu']}, {hardware['cpu_cores']} cores"
    versions = ", ".join(f"{name} {facts['about']['versions'][name]}" for name in ("difom", "torch"))
    lines = [f"# Benchmarks, {facts['about']['size']} size", "", f"{machine}; {versions}; random weights.", ""]
    if facts["about"]["size"] == "small":
        lines += [
            "Small: this shows that everything runs. Starting outweighs the work, so the figures are no speeds.",
            "",
        ]
    teachers = {name: answer for name, answer in answers.items() if name.startswith("teacher/")}
    sections = (
        ("Stage one, pictures a second", _list_teachers(teachers)),
        ("Reading", _list_reading(answers.get("reading"))),
        ("Bookkeeping, CPU seconds by records", _list_growth(answers.get("growth"))),
        ("A training step", _list_steps(answers.get("step"))),
        ("Epochs of a run", _list_epochs(answers.get("run"))),
        ("Tests on the GPU", _list_tests(answers.get("gpu-tests"))),
        ("Parts", _list_parts(parts)),
    )
    for title, rows in sections:
        lines += [f"## {title}", "", *_as_markdown(rows), ""] if len(rows) > 1 else []
    return "\n".join(lines)


def _as_markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    escaped = [[word.replace("|", "\\|") for word in row] for row in rows]
    head, *body = [f"| {' | '.join(row)} |" for row in escaped]
    return [head, f"|{' --- |' * len(rows[0])}", *body]


def _list_teachers(teachers: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Return a row for each way of each teacher; share is that of the matrix products' ceiling, of the same precision, that a
    network reaches."""
    rows = [
        ["teacher", "way", "JPEG to bytes", "hours for all", "network alone", "cosine", "share", "peak memory, GiB"]
    ]
    for answer in teachers.values():
        ceiling = answer["matmul_flops_per_s"] / answer["flops_per_image"]
        for name, way in answer["ways"].items():
            whole, network, peak = way["images_per_s"], way["network_images_per_s"], way["peak_bytes"]
            hours = f"{answer['pictures'] / whole / 3600:.2f} for {answer['pictures']}"
            cosine = f"{way['cosine']:.6f}" if "cosine" in way else ""
            memory = f"{peak / 2**30:.2f}" if peak else "-"
            alike = name in ("library", "difom") or name.endswith(answer["precision"])
            share = f"{network / ceiling:.0%}" if alike else ""
            figures = [f"{whole:.2f}", hours, f"{network:.2f}", cosine, share, memory]
            rows.append([answer["teacher"], name, *figures])
    return rows


def _list_reading(answer: dict[str, Any] | None) -> list[list[str]]:
    rows = [["way of reading", "samples/s", "GB/s", "gather is", "by CPU time"]]
    for name, speed in (answer or {"samples_per_s": {}})["samples_per_s"].items():
        ratio, cpu = ((answer or {}).get(key, {}).get(name) for key in ("ratios", "cpu_ratios"))
        rate = speed * (answer or {})["sample_bytes"] / 1e9
        times = [f"{each:.2f} x" if each else "" for each in (ratio, cpu)]
        rows.append([name, f"{speed:.1f}", f"{rate:.2f}", *times])
    return rows


def _list_growth(answer: dict[str, Any] | None) -> list[list[str]]:
    if answer is None:
        return [[]]
    rows = [["step", *(f"{each:,}" for each in answer["records"]), "exponent"]]
    for step, seconds in answer["cpu_s"].items():
        exponent = answer["exponents"].get(step)
        cells = [f"{each:.3f}" for each in seconds] + [""] * (len(answer["records"]) - len(seconds))
        rows.append([step, *cells, "" if exponent is None else f"{exponent:.2f}"])
    return rows


def _list_steps(answer: dict[str, Any] | None) -> list[list[str]]:
    rows = [["lane", "seconds a step", "CPU seconds", "times hand-written", "waiting for data"]]
    for lane, seconds in (answer or {"median_s": {}})["median_s"].items():
        wait = (answer or {})["wait_frac"].get(lane)
        ratio = f"{(answer or {})['ratios'][lane]:.2f}"
        cpu = f"{(answer or {})['cpu_s'][lane]:.4f}" if "cpu_s" in (answer or {}) else ""
        rows.append([lane, f"{seconds:.4f}", cpu, ratio, "" if wait is None else f"{wait:.1%}"])
    return rows


def _list_epochs(answer: dict[str, Any] | None) -> list[list[str]]:
    rows = [["epoch", "seconds", "waiting for data", "loss", "validation Dice"]]
    for line in (answer or {"epochs": []})["epochs"]:
        figures = [f"{line['train_s']:.2f}", f"{line['data_wait_frac']:.1%}", f"{line['loss']:.3f}"]
        dice = line.get("val_dice")
        rows.append([str(line["epoch"] + 1), *figures, "-" if dice is None else f"{dice:.3f}"])
    return rows


def _list_tests(answer: dict[str, Any] | None) -> list[list[str]]:
    return [list(answer), [str(number) for number in answer.values()]] if answer else [[]]


def _list_parts(parts: dict[str, dict[str, Any]]) -> list[list[str]]:
    rows = [["part", "outcome", "took", "why"]]
    for name, part in parts.items():
        why = " ".join(part["why"][-1:])
        rows.append([name, part["outcome"], format_seconds(part["seconds"]), why])
    return rows
