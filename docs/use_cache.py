"""Every public name of `difom_cache` once, in the order of a day's work.

It runs in an empty folder, without a network.
"""

from pathlib import Path

import numpy as np
import torch

from difom_cache import (
    Cache,
    Record,
    Teacher,
    ViewParams,
    build_teacher,
    copy,
    describe_teachers,
    draw_budget,
    drop,
    errors,
    export_hdf5,
    extract,
    fetch_weights,
    finish,
    import_hdf5,
    info,
    load_probe,
    load_records,
    make_manifest,
    open_cache,
    paint_sample,
    probe,
    read_image,
    read_mask,
    replay_image,
    replay_mask,
    score_logits,
    show,
    verify,
    write_manifest,
)

# Data: images on disk become records.
data = paint_sample("data", train=24, test=2, side=96, easy=True)
make_manifest(data, "all.csv")
records: list[Record] = load_records("all.csv")
write_manifest([each for each in records if each.split != "test"], Path("some.csv"))
# (3, H, W) in [0, 1], and (H, W) of 0 and 1
images = [torch.tensor(read_image(each.image)) for each in records]
images = [each.permute(2, 0, 1) / 255 for each in images]
masks = [torch.tensor(read_mask(each.mask)) for each in records if each.mask]

# Views: numbers say what is shown, and the same numbers show it again.
params = ViewParams(top=8, left=8, height=64, width=64, flip_h=1, angle_mdeg=20_000)
view = replay_image(images[0], params, 56)
its_mask = replay_mask(masks[0], params, 56)

# Teachers: what there is, weights for a machine without network, one teacher by itself.
print([entry["teacher"] for entry in describe_teachers()])
try:
    fetch_weights("dinov2:small", Path("weights"))
except errors.DifomError as problem:  # an error that you can fix: one line says how
    print(problem)
teacher: Teacher = build_teacher("dinov2:tiny@56", weights="random", picture_px=64)
maps = teacher.features(view[None])  # tap to (1, C, h, w)

# A cache: teachers run once over all views.
extract(
    teacher="dinov2:tiny@56",
    weights="random",
    data="some.csv",
    cache="feats",
    views=2,
    input_size=64,
)
cache: Cache = open_cache("feats")
batch = cache.gather([0, 1, 2])  # arrays as stored: images, masks, codes of every tap
print(info("feats")["columns"], show("feats", out="view.png"))

# A probe: light heads on the features, as another column; scored where it saw no mask.
probe(
    "feats",
    teachers="dinov2-tiny-random",
    name="light",
    head="linear",
    folds=2,
    labels=0.5,
    labels_seed=2,
)
groups = [record["group"] or record["id"] for record in cache.table.records]
seen = draw_budget(groups, np.ones(len(groups), bool), share=0.5, labels_seed=2)
cache = open_cache("feats")
tap = next(name for name in cache.taps if name.startswith("light/"))
print(score_logits(cache, tap, np.flatnonzero(~seen[cache.table.record])))
logits = load_probe("feats", "light", device="cpu").logits(torch.rand(1, 3, 56, 56))

# Keeping: smaller copies, one file to send, what is damaged, missing, or can go.
copy("feats", "smaller", codec="packed")
export_hdf5("feats", "feats.h5")
import_hdf5("feats.h5", "again")
print(verify("again").sound, finish("again"))
print(drop("again", "light"), "bytes freed")
