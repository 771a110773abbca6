"""Options by keyword, for signatures; made by `make keywords`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

class ExtractKeywords(TypedDict, total=False):
    """Keywords of `ExtractConfig`."""

    max_pixels: int | None
    "Largest image that is read, width times height in px. (at least 1) [default: 178956970]"
    teacher: str | Sequence[str] | None
    "NAME[:VARIANT][@PX]; may repeat. `difom-cache teachers` lists them. In Python () caches the views alone. [default: those of --like]"
    cache: str | Path | None
    "Folder to fill. [default: feats]"
    data: str | Path | None
    "Manifest, folder in a known layout or any folder inside it, COCO file, video or folder of videos. [default: data]"
    images: str | Path | None
    "Folder of pictures, in place of --data."
    masks: str | Path | None
    "Folder of their masks, or a COCO file; with --images."
    group_by: str | None
    "What belongs together: a regular expression on file names, or FILE.csv:COLUMN."
    every: str | None
    "Between the frames taken of videos, such as 0.5s (the default) or 500ms."
    unlabelled: bool | None
    "Pictures without a mask are meant."
    negatives: str | Path | None
    "Folder of images without a polyp, in the data or beside it: each has an empty mask, and counts as labelled."
    split: Literal["train", "val", "test"] | Sequence[Literal["train", "val", "test"]] | None
    "Splits to cache. [default: train,val]"
    limit: int | None
    "Records of each split; by default all. (at least 1)"
    views: int | None
    "Views of each training record; view 0 is the plain resize. (in [1, 10000]) [default: 8]"
    seed: int | None
    "Of the view plan. (at least 0) [default: 0]"
    plan: Literal["default", "flips", "pad", "plain"] | None
    "View policy; `difom-cache plans` lists them. [default: default]"
    input_size: int | None
    "Side of the stored pictures, px; strides refer to it. (in [1, 16384]) [default: 352]"
    pictures: bool | None
    "Store views and masks too. [default: on]"
    public: bool | None
    "Others may enter the folder of stored pictures, as far as the umask allows."
    like: str | Path | None
    "A cache whose views, teachers, taps and codecs are taken, for new records; both can then be trained on together."
    weights: str | Sequence[str] | None
    "hub, hub@REVISION, random or a path, for all teachers; NAME=WEIGHTS for one; may repeat. [default: hub]"
    strides: int | Sequence[int] | None
    "At which features are kept, picture px, such as 8,16,32; by default each teacher's own. (in [1, 16384])"
    codec: Literal["int8", "float16", "compact", "packed"] | None
    "How features are stored; compact only finishes columns that were begun in it. [default: int8]"
    taps: str | Sequence[str] | None
    "Taps to keep, such as block5@16,block11@32; by default those that a begun column holds, else each teacher's own."
    device: str | None
    "auto, cpu, cuda or cuda:N. [default: auto]"
    precision: Literal["float32", "bfloat16"] | None
    "Of the teachers; by default bfloat16 on CUDA and float32 elsewhere."
    batch_size: int | None
    "Views a teacher sees at once; probed by default. (in [1, 65536])"
    compile: bool | None
    "Run teachers through torch.compile."
    backend: Literal["auto", "torch", "openvino"] | None
    "What runs networks; auto takes what a begun column holds and, on a CPU, OpenVINO where it is installed. [default: DIFOM_BACKEND, or auto]"
    engine: Literal["local", "dask", "slurm", "pbs", "lsf", "sge", "htcondor"] | None
    "Where blocks are computed. [default: local]"
    workers: int | None
    "Processes or jobs of the engine. (in [1, 65536])"
    scheduler: str | None
    "Address of a running Dask scheduler."
    jobs: str | Path | None
    "TOML file with job options."
    part: str | None
    "I/N: every N-th block, starting with the I-th."
    epochs: int | None
    "Epochs of each training run, for the estimate; 75 are the paper's. (in [1, 1000000]) [default: 75]"
    runs: int | None
    "Training runs, for the estimate. (at least 1) [default: 1]"
    dry_run: bool | None
    "Stop after the estimate."
    force: bool | None
    "Go on where the disk looks too small."

class ProbeKeywords(TypedDict, total=False):
    """Keywords of `ProbeConfig`."""

    teachers: str | Sequence[str] | None
    "Teachers in the cache, by label, or by name where there is one variant; all their taps are read."
    labels: float | None
    "Share of the masks of training and validation records; those that train are learnt from. (in (0, 1]) [default: 1.0]"
    labels_seed: int | None
    "Of the choice of masks and of the folds. (at least 0) [default: 0]"
    folds: int | None
    "Parts of the labelled groups; each part's logits come from the masks of the others. (in [2, 10000]) [default: 5]"
    head: Literal["decoder", "linear", "3x3"] | None
    "A small decoder; or from a cell's own features, or those of its neighbors too. A probe that is there keeps its own. [default: decoder]"
    stride: float | None
    "Of the logits, image px; by default a quarter of the finest tap's, at least 4, or, without a decoder, the finest tap's. (in [1, 16384])"
    name: str | None
    "Of the column; by default teachers, percent of masks and seed, as in dinov2-small-probe-l10-s0."

class ManifestKeywords(TypedDict, total=False):
    """Keywords of `ManifestConfig`."""

    max_pixels: int | None
    "Largest image that is read, width times height in px. (at least 1) [default: 178956970]"
    out: str | Path | None
    "CSV to write."
    check: bool | None
    "Look for duplicates, leaks, empty masks, odd sizes; leaks exit with 1."
    montage: str | Path | None
    "PNG of the pairs that --check finds."
    sheet: str | Path | None
    "PNG of pairs to look at: the smallest, largest, oddest and empty masks, and some at random."
    names: str | Path | None
    "Folder for one CSV of names, split and group a data set."
    force: bool | None
    "Write over what lies at --out, --montage and --sheet."
    images: str | Path | None
    "Folder of pictures, in place of --data."
    masks: str | Path | None
    "Folder of their masks, or a COCO file; with --images."
    group_by: str | None
    "What belongs together: a regular expression on file names, or FILE.csv:COLUMN."
    every: str | None
    "Between the frames taken of videos, such as 0.5s (the default) or 500ms."
    unlabelled: bool | None
    "Pictures without a mask are meant."
    negatives: str | Path | None
    "Folder of images without a polyp, in the data or beside it: each has an empty mask, and counts as labelled."
    mask_levels: str | None
    "Which levels of the masks are polyp: 100, 1,2, 129-255, #ff0000 or alpha."
    exif: Literal["upright", "raw"] | None
    "What masks were drawn on whose images EXIF turns: the image as viewers show it, or its pixels as they are stored."
    bits: int | None
    "Of the levels in images of 16 bits whose files do not say it, such as 10 or 12; 16 takes them as they are. (in [8, 16])"
    skip_broken: bool | None
    "Leave out images whose COCO annotations cannot be drawn, such as boxes; each is named."

class VerifyKeywords(TypedDict, total=False):
    """Keywords of `VerifyConfig`."""

    max_pixels: int | None
    "Largest image that is read, width times height in px. (at least 1) [default: 178956970]"
    negatives: str | Path | None
    "Folder of images without a polyp, in the data or beside it: each has an empty mask, and counts as labelled."
    recompute: int | None
    "Random views to encode again and compare. (at least 0) [default: 0]"
    equivariance: bool | None
    "What warping cached maps to other views would cost."
    teacher: str | Sequence[str] | None
    "NAME[:VARIANT][@PX] of teachers to compare; all by default."
    weights: str | Sequence[str] | None
    "LABEL=WEIGHTS, or LABEL=FILE; may repeat. By default where `extract` found them."
    device: str | None
    "cpu, cuda or cuda:N. [default: cpu]"
    seed: int | None
    "Of the choice of views. (at least 0) [default: 0]"
    repair: bool | None
    "First write anew what follows from identities and records.csv."
    data: str | Path | None
    "Manifest, folder in a known layout or any folder inside it, COCO file, video or folder of videos. [default: data]"
    images: str | Path | None
    "Folder of pictures, in place of --data."
    masks: str | Path | None
    "Folder of their masks, or a COCO file; with --images."
    group_by: str | None
    "What belongs together: a regular expression on file names, or FILE.csv:COLUMN."
    every: str | None
    "Between the frames taken of videos, such as 0.5s (the default) or 500ms."
    unlabelled: bool | None
    "Pictures without a mask are meant."

class ShowKeywords(TypedDict, total=False):
    """Keywords of `ShowConfig`."""

    record: str | None
    "Record id; by default the first."
    view: int | None
    "View number. (at least 0) [default: 0]"
    out: str | Path | None
    "PNG to write. [default: view.png]"
    force: bool | None
    "Replace a file that is there."

class SampleKeywords(TypedDict, total=False):
    """Keywords of `SampleConfig`."""

    seed: int | None
    "Of the paintings. (at least 0) [default: 0]"
    train: int | None
    "Training pictures. (in [1, 1000000]) [default: 240]"
    test: int | None
    "Pictures of each of the five test sets. (in [1, 1000000]) [default: 20]"
    side: int | None
    "Of the square pictures, px. (in [32, 16384]) [default: 256]"
    easy: bool | None
    "Polyps stand out; training pictures in the styles of all test sets."

class CopyKeywords(TypedDict, total=False):
    """Keywords of `CopyConfig`."""

    taps: str | Sequence[str] | None
    "Full names of taps; all by default."
    codec: Literal["int8", "float16", "compact", "packed"] | None
    "How features are stored; by default as each tap's are."
    compress: bool | None
    "zstd: smaller on disk, slower to read."
    pictures: bool | None
    "Whether stored views go along. [default: on]"
