"""Options by keyword, for signatures; made by `make keywords`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

class ExtractKeywords(TypedDict, total=False):
    """Keywords of `ExtractConfig`."""

    max_pixels: int | None
    "Largest image to read, width times height in px. (at least 1) [default: 178956970]"
    teacher: str | Sequence[str] | None
    "NAME[:VARIANT][@PX], as listed by `difom-cache teachers`; may repeat. In Python, () caches views alone. [default: those of --like]"
    cache: str | Path | None
    "Folder to fill. [default: feats]"
    data: str | Path | None
    "Manifest, folder in a known layout or any folder inside it, COCO file, video or folder of videos. [default: data]"
    images: str | Path | None
    "Folder of images, instead of --data."
    masks: str | Path | None
    "Folder of their masks, or a COCO file; used with --images."
    group_by: str | None
    "How to group frames of one polyp or patient: a regular expression on file names, or FILE.csv:COLUMN."
    every: str | None
    "Interval between frames taken from a video, such as 0.5s (the default) or 500ms."
    unlabelled: bool | None
    "Accept images without a mask."
    negatives: str | Path | None
    "Folder of images without a polyp, inside the data or elsewhere; each gets an empty mask and counts as labelled."
    split: Literal["train", "val", "test"] | Sequence[Literal["train", "val", "test"]] | None
    "Splits to cache. [default: train,val]"
    limit: int | None
    "Use at most N records of each split; all by default. (at least 1)"
    views: int | None
    "Views of each training record; view 0 is the plain resize. (in [1, 10000]) [default: 8]"
    seed: int | None
    "Random seed of the view plan. (at least 0) [default: 0]"
    plan: Literal["default", "flips", "pad", "plain"] | None
    "View policy; `difom-cache plans` lists them. [default: default]"
    input_size: int | None
    "Side of the stored images in px; strides refer to it. (in [1, 16384]) [default: 352]"
    pictures: bool | None
    "Also store the augmented images and masks. [default: on]"
    public: bool | None
    "Let others read the folder of stored images, as far as the umask allows."
    like: str | Path | None
    "Cache to match: use its views, teachers, taps and codecs for new records, so that both can be trained on together."
    weights: str | Sequence[str] | None
    "hub, hub@REVISION, random or a path, for all teachers; NAME=WEIGHTS for one; may repeat. [default: hub]"
    strides: int | Sequence[int] | None
    "Strides at which features are stored, in image px, such as 8,16,32; by default each teacher's own. (in [1, 16384])"
    codec: Literal["int8", "float16", "compact", "packed"] | None
    "How features are stored; compact can only finish columns that were started with it. [default: int8]"
    taps: str | Sequence[str] | None
    "Taps to keep, such as block5@16,block11@32; by default those of a column that was started, else each teacher's own."
    device: str | None
    "auto, cpu, cuda or cuda:N. [default: auto]"
    precision: Literal["float32", "bfloat16"] | None
    "Precision of the teachers; by default bfloat16 on CUDA and float32 elsewhere."
    batch_size: int | None
    "Views in a teacher's batch; by default found by trial. (in [1, 65536])"
    compile: bool | None
    "Run teachers through torch.compile."
    backend: Literal["auto", "torch", "openvino"] | None
    "What runs networks; auto = as a column was started, else OpenVINO on a CPU if it is installed, else PyTorch. [default: DIFOM_BACKEND, or auto]"
    engine: Literal["local", "dask", "slurm", "pbs", "lsf", "sge", "htcondor"] | None
    "Where the work runs: on this machine, or as jobs of a scheduler. [default: local]"
    workers: int | None
    "Number of processes or jobs. (in [1, 65536])"
    scheduler: str | None
    "Address of a running Dask scheduler."
    jobs: str | Path | None
    "TOML file with job options."
    part: str | None
    "I/N: compute every N-th block, starting with the I-th."
    epochs: int | None
    "Epochs of each training run, for the estimate; the paper uses 75. (in [1, 1000000]) [default: 75]"
    runs: int | None
    "Number of training runs, for the estimate. (at least 1) [default: 1]"
    dry_run: bool | None
    "Stop after the estimate."
    measure: bool | None
    "With --dry-run: also run each teacher on two batches, and say how long all views take on this machine, and the memory."
    force: bool | None
    "Continue even if the disk looks too small."

class ProbeKeywords(TypedDict, total=False):
    """Keywords of `ProbeConfig`."""

    teachers: str | Sequence[str] | None
    "Teachers in the cache, by label, or by name where there is one variant; all their taps are read."
    labels: float | None
    "Share of the masks of training and validation records to use; heads learn from the training ones. (in (0, 1]) [default: 1.0]"
    labels_seed: int | None
    "Random seed for the choice of masks and folds. (at least 0) [default: 0]"
    folds: int | None
    "Number of folds; the logits of each fold come from a head fitted to the masks of the others. (in [2, 10000]) [default: 5]"
    head: Literal["decoder", "linear", "3x3"] | None
    "A small decoder, or a linear or 3x3 convolution on single cells. An existing probe keeps its own. [default: decoder]"
    stride: float | None
    "Stride of the logits in image px; by default that of the finest tap, and with a decoder a quarter of it, at least 4. (in [1, 16384])"
    name: str | None
    "Name of the new column; by default teachers, percent of masks and seed, as in dinov2-small-probe-l10-s0."
    access: Literal["auto", "map", "read"] | None
    "How the cache is read; auto: map on local disks, read elsewhere. [default: auto]"

class ManifestKeywords(TypedDict, total=False):
    """Keywords of `ManifestConfig`."""

    max_pixels: int | None
    "Largest image to read, width times height in px. (at least 1) [default: 178956970]"
    out: str | Path | None
    "CSV file to write."
    check: bool | None
    "Look for duplicates, leaks, empty masks and odd sizes; exit with 1 if there are leaks."
    montage: str | Path | None
    "PNG file that shows the pairs found by --check."
    sheet: str | Path | None
    "PNG file of image and mask pairs to look at: smallest, largest, oddest and empty masks, and a random sample."
    names: str | Path | None
    "Folder for a CSV of names, splits and groups of each data set."
    force: bool | None
    "Overwrite existing files at --out, --montage and --sheet."
    images: str | Path | None
    "Folder of images, instead of --data."
    masks: str | Path | None
    "Folder of their masks, or a COCO file; used with --images."
    group_by: str | None
    "How to group frames of one polyp or patient: a regular expression on file names, or FILE.csv:COLUMN."
    every: str | None
    "Interval between frames taken from a video, such as 0.5s (the default) or 500ms."
    unlabelled: bool | None
    "Accept images without a mask."
    negatives: str | Path | None
    "Folder of images without a polyp, inside the data or elsewhere; each gets an empty mask and counts as labelled."
    mask_levels: str | None
    "Mask levels that mean polyp, such as 100; 1,2; 129-255; #ff0000; or alpha."
    exif: Literal["upright", "raw"] | None
    "For images that EXIF rotates: whether masks were drawn on the image as viewers show it, or on its stored pixels."
    bits: int | None
    "Bit depth of 16-bit images whose files do not state it, such as 10 or 12; 16 = take the values as they are. (in [8, 16])"
    skip_broken: bool | None
    "Skip images whose COCO annotations cannot be drawn, such as boxes, and list them."

class VerifyKeywords(TypedDict, total=False):
    """Keywords of `VerifyConfig`."""

    max_pixels: int | None
    "Largest image to read, width times height in px. (at least 1) [default: 178956970]"
    negatives: str | Path | None
    "Folder of images without a polyp, inside the data or elsewhere; each gets an empty mask and counts as labelled."
    recompute: int | None
    "Number of random views to encode again and compare. (at least 0) [default: 0]"
    equivariance: bool | None
    "Measure how much accuracy warping cached maps to other views would cost."
    teacher: str | Sequence[str] | None
    "NAME[:VARIANT][@PX] of teachers to compare; all by default."
    weights: str | Sequence[str] | None
    "Weights of a teacher, LABEL=WEIGHTS or LABEL=FILE; may repeat. By default those that `extract` used."
    device: str | None
    "cpu, cuda or cuda:N. [default: cpu]"
    seed: int | None
    "Random seed for the choice of views. (at least 0) [default: 0]"
    repair: bool | None
    "First rewrite everything that can be derived from the identities and records.csv."
    data: str | Path | None
    "Manifest, folder in a known layout or any folder inside it, COCO file, video or folder of videos. [default: data]"
    images: str | Path | None
    "Folder of images, instead of --data."
    masks: str | Path | None
    "Folder of their masks, or a COCO file; used with --images."
    group_by: str | None
    "How to group frames of one polyp or patient: a regular expression on file names, or FILE.csv:COLUMN."
    every: str | None
    "Interval between frames taken from a video, such as 0.5s (the default) or 500ms."
    unlabelled: bool | None
    "Accept images without a mask."

class ShowKeywords(TypedDict, total=False):
    """Keywords of `ShowConfig`."""

    record: str | None
    "Record id; the first by default."
    view: int | None
    "View number. (at least 0) [default: 0]"
    out: str | Path | None
    "PNG file to write. [default: view.png]"
    force: bool | None
    "Overwrite an existing file."

class SampleKeywords(TypedDict, total=False):
    """Keywords of `SampleConfig`."""

    seed: int | None
    "Random seed of the paintings. (at least 0) [default: 0]"
    train: int | None
    "Number of training images. (in [1, 1000000]) [default: 240]"
    test: int | None
    "Number of images in each of the five test sets. (in [1, 1000000]) [default: 20]"
    side: int | None
    "Side of the square images in px. (in [32, 16384]) [default: 256]"
    easy: bool | None
    "Make polyps stand out, with training images in the styles of all test sets."

class CopyKeywords(TypedDict, total=False):
    """Keywords of `CopyConfig`."""

    taps: str | Sequence[str] | None
    "Full names of the taps to copy; all by default."
    codec: Literal["int8", "float16", "compact", "packed"] | None
    "How features are stored; by default as in the original."
    compress: bool | None
    "zstd: smaller on disk, slower to read."
    pictures: bool | None
    "Whether to copy the stored images and masks. [default: on]"
    access: Literal["auto", "map", "read"] | None
    "How the source is read; auto: map on local disks, read elsewhere. [default: auto]"
