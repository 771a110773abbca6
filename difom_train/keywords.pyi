"""Options by keyword, for signatures; made by `make keywords`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

class TrainKeywords(TypedDict, total=False):
    """Keywords of `TrainOptions`."""

    seed: int | None
    "Random seed. (at least 0) [default: 0]"
    max_pixels: int | None
    "Largest image to read, width times height in px. (at least 1) [default: 178956970]"
    cache: str | Path | Sequence[str | Path] | None
    "Cache to train from; several are trained on together. [default: feats]"
    out: str | Path | None
    "Run folder; with several seeds -seedN is appended. [default: runs/STUDENT-RECIPE-CHANGES-seedN]"
    seeds: int | Sequence[int] | None
    "Train one run for each of these seeds. (at least 0)"
    resume: bool | None
    "Resume a run that was stopped, or start it."
    allow_partial: bool | None
    "Train on the finished part of an incomplete cache."
    data: str | Path | None
    "Source images, for a cache without them and for fresh views."
    images: str | Path | None
    "Folder of images, instead of --data."
    masks: str | Path | None
    "Folder of their masks, or a COCO file; used with --images."
    every: str | None
    "Interval between frames taken from a video, such as 0.5s (the default) or 500ms."
    student: str | None
    "unet, unet++, pranet, smp:ARCH/ENCODER, an installed one, or package.module:Factory that returns your own network. [default: pranet]"
    width: int | None
    "Channels of the first level; 0 = the student's own. (in [0, 4096]) [default: 0]"
    student_weights: str | None
    "imagenet, random, a file or run folder, or imagenet:FILE for a file of ImageNet weights, which have seen no mask; auto =\nimagenet for pranet and smp, random for unet, its own for one of yours. [default: auto]"
    deep_supervision: bool | None
    "Also train the inner outputs of unet++ against the mask."
    loss: Literal["auto", "dice_bce", "structure"] | None
    "Mask loss; auto = the one that the student was published with. [default: auto]"
    input_size: int | None
    "Side of the student's input in px; stored images are resized to it on the device. (in [1, 16384]) [default: 352]"
    batch_size: int | None
    "Images in one forward pass of one process. (in [1, 65536]) [default: 16]"
    accumulate: int | None
    "Forward passes whose gradients make one step. (in [1, 65536]) [default: 1]"
    views: int | None
    "Use only the first N views of each record; 0 = all. (at least 0) [default: 0]"
    all_views: bool | None
    "Visit every view in every epoch, instead of one view of each record."
    fresh_views: bool | None
    "Draw a new view each time, from the stored view 0 or the images in --data; if features teach, for every other image. [default: on]"
    labels: float | None
    "Share of the masks of training and validation records to use, chosen by group; the others are never read. (in (0, 1]) [default: 1.0]"
    labels_seed: int | None
    "Random seed for the choice of these masks; smaller shares are subsets of larger ones. (at least 0) [default: 0]"
    labelled_min_frac: float | None
    "Smallest share of each batch that has a mask; larger if more of the records have one. (in (0, 1]) [default: 0.5]"
    unlabelled_ratio: float | None
    "Images without a mask to add to a batch for each image with one; 0 = mix them within the batch, by labelled_min_frac. (at least 0) [default: 0.0]"
    scales: float | Sequence[float] | None
    "Factors on the input size, one drawn for each step, rounded to a size that the student takes; PraNet: 0.75,1,1.25. (in (0, 16]) [default: 1.0]"
    brightness: float | None
    "Factor drawn from [1 - x, 1 + x]. (in [0, 1]) [default: 0.2]"
    contrast: float | None
    "Factor drawn from [1 - x, 1 + x]. (in [0, 1]) [default: 0.2]"
    saturation: float | None
    "Factor drawn from [1 - x, 1 + x]. (in [0, 1]) [default: 0.2]"
    hue: float | None
    "Turn drawn from [-x, x], in full circles. (in [0, 0.5]) [default: 0.02]"
    optimizer: Literal["adam", "adamw", "sgd"] | None
    "Optimizer. [default: adamw]"
    epochs: int | None
    "Passes over the training records. (in [1, 1000000]) [default: 75]"
    lr: float | None
    "Highest learning rate. (at least 0) [default: 0.0005]"
    pretrained_encoder_lr_factor: float | None
    "Factor on lr for an encoder that starts from pretrained weights. (at least 0) [default: 0.2]"
    weight_decay: float | None
    "Weight decay, decoupled for adamw, added to the gradient for adam and sgd; never on biases and norms. (at least 0) [default: 0.0001]"
    schedule: Literal["cosine", "constant"] | None
    "Learning-rate schedule; cosine ends at 1 % of lr. [default: cosine]"
    warmup_frac: float | None
    "Share of all steps for the linear warm-up from 0. (in [0, 1]) [default: 0.02]"
    clip_norm: float | None
    "Largest gradient norm; 0 = no clipping. (at least 0) [default: 1.0]"
    ema_decay: float | None
    "Decay per step of the exponential moving average (EMA) that is validated and kept; 0 = no EMA. (in [0, 1)) [default: 0.0]"
    patience: int | None
    "Stop after N epochs without a better validation Dice; 0 = never. (at least 0) [default: 0]"
    keep: Literal["auto", "best", "last"] | None
    "Which epoch becomes the student: best = by validation, last, or auto = best, but last if no patience is set and there are\nfewer than 100 validation images, which would choose by chance. [default: auto]"
    device: str | None
    "auto, cpu, cuda or cuda:N. [default: auto]"
    precision: Literal["auto", "float32", "bfloat16"] | None
    "Precision of the student (bfloat16 is mixed); auto = bfloat16 on CUDA, float32 on the CPU. [default: auto]"
    stage: Literal["auto", "disk", "ram", "gpu"] | None
    "Where the cache is held while training; auto decides by size. [default: auto]"
    access: Literal["auto", "map", "read"] | None
    "How the cache is read where it stays on disk; auto: map on local disks, read elsewhere. [default: auto]"
    channels_last: bool | None
    "Use the channels-last memory format, the fastest for convolutions on CPUs and recent GPUs. [default: on]"
    compile: bool | None
    "Compile the student with torch.compile; the first step then takes minutes."
    logger: Literal["tensorboard", "csv", "wandb", "mlflow", "none"] | None
    "Log of each epoch beside log.jsonl, which is always written; wandb and mlflow are extras. [default: tensorboard]"
    distill: Literal["none", "difom", "paper", "published", "multiscale", "mean_teacher"] | None
    "Kind of distillation. [default: none]"
    teachers: str | Sequence[str] | None
    "Labels of the cache's teachers to learn from; none named = all."
    learn: Literal["both", "features", "masks"] | None
    "What multiscale learns from: the teachers' features, their masks, or both as far as the cache holds them. [default: both]"
    probe: Literal["auto", "none"] | None
    "auto = fit a probe to the run's masks if some images have none, no teacher is named, and no teacher has logits. [default: auto]"
    rounds: int | None
    "2 trains the student alone first, in RUN/first; its masks then teach a second student beside the teachers' (multiscale). (in [1, 2]) [default: 1]"
    low_weight: float | None
    "Weight of the low-frequency term (difom, paper, published, and multiscale with bands); 0.1 as in the paper. (at least 0) [default: 0.1]"
    high_weight: float | None
    "Weight of the high-frequency term; 0.1 as in the paper. (at least 0) [default: 0.1]"
    gradient_share: float | None
    "Share of the student's gradient from all terms together, set by one factor on their weights; 0 = keep their weights. (in [0, 1)) [default: 0.0]"
    feature_weight: float | None
    "Weight of multiscale's feature term. (at least 0) [default: 1.0]"
    relation_weight: float | None
    "Weight of multiscale's term on the cosines between all pairs of cells of an image. (at least 0) [default: 0.0]"
    logits_weight: float | None
    "Weight of multiscale's term on the teachers' masks, which teach images whose own mask the run may not see; 0 = off. (at least 0) [default: 1.0]"
    hard_masks: bool | None
    "Threshold the teachers' masks at 0.5 instead of using soft ones (multiscale)."
    consistency_weight: float | None
    "Weight of mean_teacher's consistency term. (at least 0) [default: 1.0]"
    ramp_frac: float | None
    "Share of the run over which all terms ramp up to their weights, as exp(-5 (1 - t)^2). (in [0, 1]) [default: 0.0]"
    confidence: float | None
    "Probability above which the EMA always teaches a pixel (mean_teacher). (in [0.5, 1)) [default: 0.95]"
    channels: int | None
    "Channels of the target: in total for difom and paper, at most this many per tap for multiscale. (in [1, 65536]) [default: 256]"
    bands: bool | None
    "Also compare the low and the high band of each pair (multiscale)."
    recipe: str | None
    "Name of a recipe, or a TOML file; `difom-train recipes` lists them. [default: difom-multiscale]"
    changes: str | Sequence[str] | None
    "Change any setting: key=value, such as phases.0.distillation=0.5; may repeat."

class EvaluateKeywords(TypedDict, total=False):
    """Keywords of `EvaluateConfig`."""

    max_pixels: int | None
    "Largest image to read, width times height in px. (at least 1) [default: 178956970]"
    limit: int | None
    "Score at most N frames of each set. (at least 1)"
    device: str | None
    "auto, cpu, cuda or cuda:N. [default: auto]"
    workers: int | None
    "Number of scoring processes; 0 = score in this one. (in [0, 65536])"
    batch_size: int | None
    "Images in one forward pass. (in [1, 65536])"
    out: str | Path | None
    "Output folder; several runs get a subfolder each. [default: RUN/eval]"
    maps: str | Path | None
    "Folder for each frame's probability as a grey PNG, for other evaluators; several runs get a subfolder each."
    map_bits: Literal[8, 16] | None
    "Bit depth of these PNGs. [default: 8]"
    images: str | Path | None
    "Folder of images, instead of --data."
    masks: str | Path | None
    "Folder of their masks, or a COCO file; used with --images."
    group_by: str | None
    "How to group frames of one polyp or patient: a regular expression on file names, or FILE.csv:COLUMN."
    every: str | None
    "Interval between frames taken from a video, such as 0.5s (the default) or 500ms."

class PredictKeywords(TypedDict, total=False):
    """Keywords of `PredictConfig`."""

    max_pixels: int | None
    "Largest image to read, width times height in px. (at least 1) [default: 178956970]"
    out: str | Path | None
    "Output folder for masks, outlines and polyps.jsonl."
    device: str | None
    "auto, cpu, cuda or cuda:N. [default: auto]"
    batch_size: int | None
    "Images in one forward pass. (in [1, 65536])"
    outlines: bool | None
    "Also write the images with polyps outlined. [default: on]"
    force: bool | None
    "Overwrite existing files."

class StudyKeywords(TypedDict, total=False):
    """Keywords of `StudyConfig`."""

    max_pixels: int | None
    "Largest image to read, width times height in px. (at least 1) [default: 178956970]"
    out: str | Path | None
    "Folder of the runs and of study.csv, .md, .html and .svg; later commands add rows. [default: study]"
    cache: str | Path | Sequence[str | Path] | None
    "Cache to train from; may repeat. [default: feats]"
    recipes: str | Sequence[str] | None
    "Names of recipes, or TOML files. [default: baseline,difom,difom-multiscale]"
    teachers: str | Sequence[str] | None
    "Labels of the cache to learn from, joined by commas; may repeat, a row for each. {percent} and {labels_seed} are filled in."
    labels: float | Sequence[float] | None
    "Shares of the masks of training and validation records to use. (in (0, 1]) [default: 0.1,1.0]"
    labels_seeds: int | Sequence[int] | None
    "Random seeds for the choice of masks; by default each run's own seed. (at least 0)"
    seeds: int | Sequence[int] | None
    "Random seeds; each row gets one run per seed. (at least 0) [default: 0,1,2]"
    students: str | Sequence[str] | None
    "Student; may repeat. [default: unet]"
    also: str | Sequence[str] | None
    "Also score this: a run, teacher:SPEC, or probe:CACHE/LABEL; may repeat."
    results: str | Path | Sequence[str | Path] | None
    "results.json of the same study from another machine; its runs are not trained again. May repeat."
    width: int | None
    "Channels of the first level; 0 = the student's own. (in [0, 4096]) [default: 16]"
    input_size: int | None
    "Side of the student's input in px. (in [1, 16384]) [default: 128]"
    batch_size: int | None
    "Images in a step. (in [1, 65536]) [default: 16]"
    epochs: int | None
    "Passes over the training records. (in [1, 1000000]) [default: 16]"
    device: str | None
    "auto, cpu, cuda or cuda:N; by default as the recipe says."
    changes: str | Sequence[str] | None
    "Change any setting: key=value; may repeat."
    limit: int | None
    "Score at most N frames of each set. (at least 1)"
    data: str | Path | None
    "Manifest, test sets, or any folder inside them."
    images: str | Path | None
    "Folder of images, instead of --data."
    masks: str | Path | None
    "Folder of their masks, or a COCO file; used with --images."
    group_by: str | None
    "How to group frames of one polyp or patient: a regular expression on file names, or FILE.csv:COLUMN."
    every: str | None
    "Interval between frames taken from a video, such as 0.5s (the default) or 500ms."

class CompareKeywords(TypedDict, total=False):
    """Keywords of `CompareConfig`."""

    max_pixels: int | None
    "Largest image to read, width times height in px. (at least 1) [default: 178956970]"
    out: str | Path | None
    "Output folder for tables and report.html. [default: comparison]"
    published: bool | None
    "Add the figures published with PraNet. [default: on]"
    cost: bool | None
    "Measure parameters, FLOPs and latency. [default: on]"
    device: str | None
    "auto, cpu, cuda or cuda:N. [default: auto]"
    gallery_per_set: int | None
    "Frames of each set that the report shows. (at least 0) [default: 12]"
    resamples: int | None
    "Number of bootstrap resamples. (in [1, 10000000]) [default: 10000]"
    seed: int | None
    "Random seed of the bootstrap. (at least 0) [default: 0]"
    anonymous: bool | None
    "Number the report's frames instead of naming them."
    data: str | Path | None
    "Training and test data, to score runs without scores and to leave out test frames that repeat training images."
    images: str | Path | None
    "Folder of images, instead of --data."
    masks: str | Path | None
    "Folder of their masks, or a COCO file; used with --images."
    group_by: str | None
    "How to group frames of one polyp or patient: a regular expression on file names, or FILE.csv:COLUMN."
    every: str | None
    "Interval between frames taken from a video, such as 0.5s (the default) or 500ms."

class CurvesKeywords(TypedDict, total=False):
    """Keywords of `CurvesConfig`."""

    out: str | Path | None
    "PNG file to write. [default: curves.png]"
    force: bool | None
    "Overwrite an existing file."

class ExportKeywords(TypedDict, total=False):
    """Keywords of `ExportConfig`."""

    out: str | Path | None
    "File to write."
    format: str | None
    "onnx, or torch for a torch.export file. [default: onnx]"
    dynamic_size: bool | None
    "Accept any height and width."
    output_size: Literal["input", "frame"] | None
    "frame: take whole frames of any size, resize inside, and return masks of their size. [default: input]"
    int8: bool | None
    "Quantise weights and activations (ONNX)."
    calibration: str | Path | None
    "Data whose training frames calibrate int8."
    check: str | Path | None
    "Data on which the file is compared with the student."
    frames: int | None
    "Number of frames for calibration and comparison. (at least 1) [default: 16]"
    force: bool | None
    "Overwrite an existing file."
    anonymous: bool | None
    "Leave the run's name out of the file."

class CostKeywords(TypedDict, total=False):
    """Keywords of `CostConfig`."""

    teachers: str | Sequence[str] | None
    "Teacher to compare with, such as sam:vit_b; may repeat."
    device: str | None
    "auto, cpu, cuda or cuda:N. [default: auto]"
    passes: int | None
    "Number of timed passes. (at least 1) [default: 30]"
