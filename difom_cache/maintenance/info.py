"""What a cache holds, as one dictionary and as a page of text; and several side by side: can they be trained on together?"""

from collections.abc import Sequence
from functools import reduce
from itertools import combinations
from operator import add
from pathlib import Path
from typing import Any

from difom_cache.base.text import count_of, format_bytes, format_table, name_some
from difom_cache.codecs.fidelity import Fidelity
from difom_cache.data.join import Join, join_records
from difom_cache.store.identity import format_random_warning
from difom_cache.store.layout import PICTURES, SPLITS, Column
from difom_cache.store.reader import Cache, open_cache
from difom_cache.store.schema import DoneMarker


def info(cache: str | Path) -> dict[str, Any]:
    """Return what lies in a cache, ready for JSON.

    Returns:
        `path`, `picture_px`, `records`, `views` (by split), `views_without_mask`, `plan`, `content_digest` (by column), and
        `columns`: folder ("pictures", "teachers/LABEL") to its blocks, bytes and, of a teacher, what it is and `taps`, with
        how well codes keep features.

    Raises:
        CacheFormatError: there is no cache.
    """
    opened = open_cache(cache)
    table = opened.table
    return {
        "path": str(cache),
        "picture_px": opened.picture_px,
        "records": opened.identity.records,
        "views": {name: int((table.split == number).sum()) for number, name in enumerate(SPLITS)},
        "views_without_mask": int((table.labelled == 0).sum()),
        "plan": opened.identity.to_dict()["plan"],
        "columns": {column.folder: describe_column(opened, column) for column in opened.columns()},
        "content_digest": opened.content_digests(),
    }


def describe_column(cache: Cache, column: Column) -> dict[str, Any]:
    """Return blocks, bytes and, for a teacher, its identity's main facts and taps."""
    markers = cache.markers(column)
    facts: dict[str, Any] = {
        "blocks": column.blocks,
        "finished_blocks": len(markers),
        "damaged_blocks": cache.damaged.get(column.folder, []),
        "block_rows": column.block_rows,
        "stored_bytes": sum(file.file_bytes for marker in markers.values() for file in marker.files.values()),
        "bytes_per_view": sum(array.row_bytes for array in column.arrays),
    }
    if column.folder == PICTURES:
        return facts
    label = column.label
    identity = cache.teachers[label]
    teacher = identity.teacher
    told = ("name", "variant", "input_px", "weights_digest", "precision", "libraries")
    facts |= {name: getattr(teacher, name) for name in told}
    facts["weights"] = teacher.weights or "trained"
    facts["backend"] = "torch" if identity.backend is None else identity.backend.name
    facts |= {"device": identity.device, "batch": identity.batch, "threads": identity.threads}
    facts["taps"] = {
        f"{label}/{tap.name}": {
            **{name: getattr(tap, name) for name in ("kind", "channels", "grid", "stride")},
            "codec": tap.codec.name,
            **format_fidelity(markers, tap.name),
        }
        for tap in identity.taps
    }
    return facts


def format_fidelity(markers: dict[int, DoneMarker], tap: str) -> dict[str, float]:
    """Return relative L2 error and mean-removed cosine of a tap's targets against its live features, over all blocks."""
    held = [marker.fidelity[tap].model_dump() for marker in markers.values() if tap in marker.fidelity]
    if not held:
        return {}
    total = reduce(add, map(Fidelity.from_dict, held))
    return {
        "relative_l2": total.relative_l2,
        "cosine_mean": total.mean_cosine,
        "cosine_percentile_1": total.cosine_percentile(1),
        "kept_variance": total.kept_variance,
    }


def format_info(facts: dict[str, Any]) -> str:
    """Return the facts as a page of text."""
    views = ", ".join(f"{count} {split}" for split, count in facts["views"].items() if count)
    plan = facts["plan"]
    lines = [
        f"{facts['path']}: {facts['records']} records, views: {views}; images of {facts['picture_px']} px",
        f"plan {plan['policy']!r}, seed {plan['seed']}, {count_of(plan['views'], 'view')} of each training record",
    ]
    random = [Path(name).name for name, column in facts["columns"].items() if column.get("weights") == "random"]
    if random:
        lines.append(format_random_warning(random))
    if facts["views_without_mask"]:
        lines.append(f"{facts['views_without_mask']} views have no mask")
    for folder, column in facts["columns"].items():
        state = "complete" if column["finished_blocks"] == column["blocks"] else "incomplete"
        blocks = f"{column['finished_blocks']} of {column['blocks']} blocks"
        size = f"{format_bytes(column['bytes_per_view'])} a view, {format_bytes(column['stored_bytes'])}"
        lines.append(f"{folder}: {state}, {blocks}, {size}")
        if column["damaged_blocks"]:
            lines.append(f"  damaged blocks: {column['damaged_blocks']}; `difom-cache extract` makes them anew")
        if "name" in column:
            weights = f"{column['weights']} weights {column['weights_digest'][:12]}"
            built = f"{column['name']}:{column['variant']} at {column['input_px']} px"
            lines.append(f"  {built}, {weights}, {column['precision']} on {column['device']}")
        for name, tap in column.get("taps", {}).items():
            line = f"  {name}: {tap['channels']} channels, {tap['grid']} x {tap['grid']}, {tap['codec']}"
            if "cosine_mean" in tap:
                line += f", cosine {tap['cosine_mean']:.5f} (1st percentile {tap['cosine_percentile_1']:.5f})"
                line += f", relative error {tap['relative_l2']:.5f}"
            lines.append(line)
    lines.append(f"content digest {facts['content_digest']['cache']}")
    return "\n".join(lines)


_MIXED = ("name", "variant", "input_px", "weights_digest", "precision")
"""What must be equal for one teacher's features of two caches to be mixed, beside its taps."""
_ABSENT = "-"


def join_caches(caches: Sequence[Path]) -> Join:
    """Return what the records of some caches are called in a run that reads all of them."""
    return join_records([open_cache(cache).table.records for cache in caches])


def format_side_by_side(caches: Sequence[dict[str, Any]], join: Join) -> str:
    """Return the facts of several caches, a column each, and what a run that reads all of them would see.

    Args:
        caches: as `info` gives them.
        join: of their records.
    """
    names = _name_columns([Path(facts["path"]) for facts in caches])
    folders = list(dict.fromkeys(name for facts in caches for name in facts["columns"]))
    rows = [["", *names]]
    for split in ("train", "val", "test"):
        rows.append([f"{split} views", *(str(facts["views"][split] or _ABSENT) for facts in caches)])
    rows.append(["records", *(str(facts["records"]) for facts in caches)])
    rows.append(["views without mask", *(str(facts["views_without_mask"] or _ABSENT) for facts in caches)])
    rows.append(["views a train record", *(str(facts["plan"]["views"]) for facts in caches)])
    rows.append(["plan, seed", *(f"{facts['plan']['policy']}, {facts['plan']['seed']}" for facts in caches)])
    rows.append(
        ["pictures, px", *(str(facts["picture_px"]) if PICTURES in facts["columns"] else "none" for facts in caches)]
    )
    for folder in folders:
        held = [facts["columns"].get(folder) for facts in caches]
        rows.append([Path(folder).name, *map(_describe_state, held)])
        if any(column and "name" in column for column in held):
            rows.append(["  weights", *(column["weights_digest"][:12] if column else _ABSENT for column in held)])
            taps = list(dict.fromkeys(tap for column in held if column for tap in column["taps"]))
            rows += [[f"  {tap.partition('/')[2]}", *(_describe_tap(column, tap) for column in held)] for tap in taps]
    stored = [sum(column["stored_bytes"] for column in facts["columns"].values()) for facts in caches]
    rows.append(["bytes", *map(format_bytes, stored)])
    rows.append(["content digest", *(facts["content_digest"]["cache"][:12] for facts in caches)])
    seen = join.as_json()
    together = [f"together: {seen['records']} records in {seen['groups']} groups", *join.describe()]
    told = find_obstacles(caches, join) or ["these caches can be trained on together"]
    return "\n".join([format_table(rows, left=None), "", *together, *told])


def find_obstacles(caches: Sequence[dict[str, Any]], join: Join) -> list[str]:
    """Return a line for everything that keeps caches from being trained on together, or that they do not share.

    Args:
        caches: as `info` gives them.
        join: of their records.
    """
    paths = [Path(facts["path"]) for facts in caches]
    names = _name_columns(paths)
    lines = [
        f"cannot be trained on together: {one} and {other} are one cache"
        for one, other in combinations(paths, 2)
        if one.samefile(other)
    ]
    if join.torn:
        lines.append(
            f"cannot be trained on together: {len(join.torn)} images train in one cache and validate in another "
            f"({name_some(join.torn)})"
        )
    if len({facts["picture_px"] for facts in caches}) > 1:
        lines.append("cannot be trained on together: their pictures have different sizes")
    for folder in dict.fromkeys(name for facts in caches for name in facts["columns"] if name != PICTURES):
        held = [facts["columns"].get(folder) for facts in caches]
        label = Path(folder).name
        lacking = [name for name, column in zip(names, held, strict=True) if column is None]
        if lacking:
            lines.append(f"{label}: not in {', '.join(lacking)}, so no run of all can use it")
            continue
        differing = [key for key in _MIXED if len({str(column.get(key)) for column in held if column}) > 1]
        taps = [{tap: _describe_tap(column, tap) for tap in column["taps"]} for column in held if column]
        differing += ["taps"] if any(each != taps[0] for each in taps) else []
        if differing:
            lines.append(f"{label}: cannot be trained on together, as they differ in {', '.join(differing)}")
    return lines


def _name_columns(paths: Sequence[Path]) -> list[str]:
    """Return the folders' names, or their whole paths where two have one name."""
    names = [path.name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _describe_state(column: dict[str, Any] | None) -> str:
    if column is None:
        return _ABSENT
    done, blocks = column["finished_blocks"], column["blocks"]
    return "complete" if done == blocks else f"{done} of {blocks} blocks"


def _describe_tap(column: dict[str, Any] | None, name: str) -> str:
    tap = column["taps"].get(name) if column else None
    return _ABSENT if tap is None else f"{tap['channels']} x {tap['grid']}², {tap['codec']}"
