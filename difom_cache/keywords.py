"""Options by keyword, for signatures; made by `make keywords`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict


class ExtractKeywords(TypedDict, total=False):
    """Keywords of `ExtractConfig`."""

    data: str | Path | None
    "Manifest, folder in a known layout or any folder inside it, COCO file, video or folder of videos. [default: data]"
    images: str | Path | None
    "Folder of pictures, in place of --data."
    masks: str | Path | None
    "Folder of their masks, or a COCO file; with --images."
    unlabelled: bool | None
    "Pictures without a mask are meant."
    group_by: str | None
    "What belongs together: a regular expression on file names, or FILE.csv:COLUMN."
    every: str | None
    "Between the frames taken of videos, such as 0.5s (the default) or 500ms."
    teacher: str | Sequence[str] | None
    "NAME[:VARIANT][@PX]; may repeat. `difom-cache teachers` lists them. In Python () caches the views alone. [default: those of --like]"
    cache: str | Path | None
    "Folder to fill. [default: feats]"
    like: str | Path | None
    "A cache whose views, teachers, taps and codecs are taken, for new records; both can then be trained on together."
    weights: str | Sequence[str] | None
    "hub, hub@REVISION, random or a path, for all teachers; NAME=WEIGHTS for one; may repeat. [default: hub]"
    views: int | None
    "Views of each training record; view 0 is the plain resize. (in [1, 10000]) [default: 8]"
    seed: int | None
    "Of the view plan. (at least 0) [default: 0]"
    plan: Literal["default", "flips", "pad", "plain"] | None
    "View policy; `difom-cache plans` lists them. [default: default]"
    input_size: int | None
    "Side of the stored pictures, px; strides refer to it. (at least 1) [default: 352]"
    strides: int | Sequence[int] | None
    "At which features are kept, picture px, such as 8,16,32; by default each teacher's own. (at least 1)"
    codec: Literal["int8", "float16", "compact"] | None
    "How features are stored. [default: int8]"
    taps: str | Sequence[str] | None
    "Taps to keep, such as block11@16,block5@32; by default each teacher's own."
    split: Literal["train", "val", "test"] | Sequence[Literal["train", "val", "test"]] | None
    "Splits to cache. [default: train,val]"
    limit: int | None
    "Records of each split; by default all. (at least 1)"
    pictures: bool | None
    "Store views and masks too. [default: on]"
    device: str | None
    "auto, cpu, cuda or cuda:N. [default: auto]"
    precision: Literal["float32", "bfloat16"] | None
    "Of the teachers; by default bfloat16 on CUDA and float32 elsewhere."
    batch_size: int | None
    "Views a teacher sees at once; probed by default. (at least 1)"
    compile: bool | None
    "Run teachers through torch.compile."
    backend: Literal["auto", "torch", "openvino"] | None
    "What runs networks; auto takes what a begun column holds and, on a CPU, OpenVINO where it is installed. [default: DIFOM_BACKEND, or auto]"
    engine: Literal["local", "dask", "slurm", "pbs", "lsf", "sge", "htcondor"] | None
    "Where blocks are computed. [default: local]"
    workers: int | None
    "Processes or jobs of the engine. (at least 1)"
    scheduler: str | None
    "Address of a running Dask scheduler."
    jobs: str | Path | None
    "TOML file with job options."
    part: str | None
    "I/N: every N-th block, starting with the I-th."
    epochs: int | None
    "Epochs of each training run, for the estimate; 75 are the paper's. (at least 1) [default: 75]"
    runs: int | None
    "Training runs, for the estimate. (at least 1) [default: 1]"
    dry_run: bool | None
    "Stop after the estimate."
    force: bool | None
    "Go on where the disk looks too small."
    public: bool | None
    "Others may enter the folder of stored pictures, as far as the umask allows."


class ProbeKeywords(TypedDict, total=False):
    """Keywords of `ProbeConfig`."""

    cache: str | Path | None
    "Folder of the cache; it holds pictures and masks. [default: feats]"
    teachers: str | Sequence[str] | None
    "Teachers in the cache, by label, or by name where there is one variant; all their taps are read."
    labels: float | None
    "Share of the masks of training and validation records; those that train are learnt from. (in (0, 1]) [default: 1.0]"
    labels_seed: int | None
    "Of the choice of masks and of the folds. (at least 0) [default: 0]"
    folds: int | None
    "Parts of the labelled groups; each part's logits come from the masks of the others. (at least 2) [default: 5]"
    head: Literal["linear", "3x3"] | None
    "From a cell's own features, or from those of its neighbours too. [default: linear]"
    stride: float | None
    "Of the logits, picture px; by default that of the finest tap. (more than 0)"
    name: str | None
    "Of the column; by default teachers, percent of masks and seed, as in dinov2-small-probe-l10-s0."
