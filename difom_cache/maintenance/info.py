"""What a cache holds, as one dictionary and as a page of text."""

from pathlib import Path
from typing import Any

from difom_cache.base.text import format_bytes
from difom_cache.codecs.fidelity import Fidelity
from difom_cache.store.identity import format_random_warning
from difom_cache.store.layout import PICTURES, SPLITS, Column
from difom_cache.store.ledger import DoneMarker
from difom_cache.store.reader import Cache, open_cache


def info(cache: str | Path) -> dict[str, Any]:
    """Return what lies in a cache: identity, views by split, columns, taps, fidelity, content digests.

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
    label = column.folder.partition("/")[2]
    identity = cache.teachers[label]
    teacher = identity.teacher
    facts |= {
        name: getattr(teacher, name)
        for name in ("name", "variant", "input_px", "weights_digest", "precision", "libraries")
    }
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
    parts = [Fidelity.from_dict(marker.fidelity[tap]) for marker in markers.values() if tap in marker.fidelity]
    if not parts:
        return {}
    total = parts[0]
    for part in parts[1:]:
        total = total + part
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
        f"{facts['path']}: {facts['records']} records, views: {views}; pictures of {facts['picture_px']} px",
        f"plan {plan['policy']!r}, seed {plan['seed']}, {plan['views']} views of each training record",
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
            lines.append(
                f"  {column['name']}:{column['variant']} at {column['input_px']} px, {column['weights']} weights "
                f"{column['weights_digest'][:12]}, "
                f"{column['precision']} on {column['device']}"
            )
        for name, tap in column.get("taps", {}).items():
            line = f"  {name}: {tap['channels']} channels, {tap['grid']} x {tap['grid']}, {tap['codec']}"
            if "cosine_mean" in tap:
                line += f", cosine {tap['cosine_mean']:.5f} (1st percentile {tap['cosine_percentile_1']:.5f})"
                line += f", relative error {tap['relative_l2']:.5f}"
            lines.append(line)
    lines.append(f"content digest {facts['content_digest']['cache']}")
    return "\n".join(lines)
