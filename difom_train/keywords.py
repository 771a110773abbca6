"""Options by keyword, for signatures; made by `make keywords`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict


class TrainKeywords(TypedDict, total=False):
    """Keywords of `TrainOptions`."""

    seed: int | None
    "Key of all randomness. (in [0, 9223372036854775807]) [default: 0]"
    cache: str | Path | Sequence[str | Path] | None
    "Cache to train from; several are trained on together. [default: feats]"
    data: str | Path | None
    "Source pictures, for a cache without them and for fresh views."
    out: str | Path | None
    "Run folder; with several seeds -seedN is appended. [default: runs/STUDENT-RECIPE-CHANGES-seedN]"
    seeds: int | Sequence[int] | None
    "One run for each, in place of the seed. (in [0, 9223372036854775807])"
    resume: bool | None
    "Go on with a run that was stopped; one that has not begun begins."
    allow_partial: bool | None
    "Train on what is there of an unfinished cache."
    student: str | None
    "unet, unet++, pranet, smp:ARCH/ENCODER, one that is installed, or package.module:Factory of your own. [default: pranet]"
    width: int | None
    "Channels of the first level; 0 = the student's own. (at least 0) [default: 0]"
    student_weights: str | None
    "imagenet, random, or a file or run folder; auto = imagenet for pranet and smp, random for unet, its own for one of yours. [default: auto]"
    deep_supervision: bool | None
    "Train the inner outputs of unet++ against the mask as well."
    loss: Literal["auto", "dice_bce", "structure"] | None
    "Loss of the masks; auto = the one that the student was published with. [default: auto]"
    input_size: int | None
    "Side of the student's input in px; the stored pictures are resized to it on the device. (at least 1) [default: 352]"
    batch_size: int | None
    "Pictures in one forward pass of one process. (at least 1) [default: 16]"
    accumulate: int | None
    "Forward passes whose gradients make one step. (at least 1) [default: 1]"
    views: int | None
    "Use the first so many views of each record; 0 = all. (at least 0) [default: 0]"
    all_views: bool | None
    "Visit every view in every epoch, in place of one view of each record."
    fresh_views: bool | None
    "Draw new views in every epoch from the source pictures (needs --data); beside features for every other picture alone."
    labels: float | None
    "Share of the masks of train and validation records together; the others are never read, in groups as a whole. (in (0, 1]) [default: 1.0]"
    labels_seed: int | None
    "Of the choice of these masks; smaller shares lie inside larger ones. (at least 0) [default: 0]"
    labelled_min_frac: float | None
    "Least share of each batch that carries a mask; more where more of the records have one. (in (0, 1]) [default: 0.5]"
    scales: float | Sequence[float] | None
    "Factors on the input's side, one drawn for each step, rounded to what the student takes; PraNet: 0.75,1,1.25. (more than 0) [default: 1.0]"
    brightness: float | None
    "Factor drawn from [1 - x, 1 + x]. (in [0, 1]) [default: 0.2]"
    contrast: float | None
    "Factor drawn from [1 - x, 1 + x]. (in [0, 1]) [default: 0.2]"
    saturation: float | None
    "Factor drawn from [1 - x, 1 + x]. (in [0, 1]) [default: 0.2]"
    hue: float | None
    "Turn drawn from [-x, x], in full circles. (in [0, 0.5]) [default: 0.02]"
    optimizer: Literal["adam", "adamw", "sgd"] | None
    "Rule of the steps. [default: adamw]"
    epochs: int | None
    "Passes over the train records. (at least 1) [default: 75]"
    lr: float | None
    "Highest learning rate. (at least 0) [default: 0.0005]"
    pretrained_encoder_lr_factor: float | None
    "Factor on lr for an encoder that starts from pretrained weights. (at least 0) [default: 0.2]"
    weight_decay: float | None
    "Decoupled for adamw, added to the gradient for adam and sgd; never on biases and norms. (at least 0) [default: 0.0001]"
    schedule: Literal["cosine", "constant"] | None
    "How lr falls; cosine ends at 1 % of it. [default: cosine]"
    warmup_frac: float | None
    "Share of all steps over which lr rises from 0. (in [0, 1]) [default: 0.02]"
    clip_norm: float | None
    "Largest gradient norm; 0 = not clipped. (at least 0) [default: 1.0]"
    ema_decay: float | None
    "Decay a step of the averaged weights that are validated and kept; 0 = no average. (in [0, 1)) [default: 0.0]"
    patience: int | None
    "Stop after so many epochs without a better validation Dice; 0 = never. (at least 0) [default: 0]"
    device: str | None
    "auto, cpu, cuda or cuda:N. [default: auto]"
    precision: Literal["auto", "float32", "bfloat16"] | None
    "Of the student's passes (bfloat16 is mixed); auto = bfloat16 on CUDA, float32 on the CPU. [default: auto]"
    stage: Literal["auto", "disk", "ram", "gpu"] | None
    "Where the cache is held while training; auto = by measured sizes. [default: auto]"
    channels_last: bool | None
    "Keep pictures and weights with channels innermost, as convolutions run fastest on CPUs and recent GPUs. [default: on]"
    compile: bool | None
    "Compile the student with torch.compile; the first step then takes minutes."
    logger: Literal["tensorboard", "csv", "none"] | None
    "A second log; log.jsonl is written in any case. [default: tensorboard]"
    distill: Literal["none", "difom", "paper", "published", "multiscale", "mean_teacher"] | None
    "Kind of distillation. [default: none]"
    teachers: str | Sequence[str] | None
    "Labels of the cache's teachers to learn from; none named = all."
    low_weight: float | None
    "Of the low-frequency term (difom, paper, published, and multiscale with bands); the paper's weight. (at least 0) [default: 0.1]"
    high_weight: float | None
    "Of the high-frequency term; the paper's weight. (at least 0) [default: 0.1]"
    gradient_share: float | None
    "Share of the student's gradient that all terms together get, by one factor on their weights; 0 = the weights as they are. (in [0, 1)) [default: 0.0]"
    feature_weight: float | None
    "Of multiscale's feature term. (at least 0) [default: 1.0]"
    logits_weight: float | None
    "Of multiscale's term on the teachers' logits; 0 leaves their logits unread. (at least 0) [default: 1.0]"
    hard_masks: bool | None
    "Make masks of the teachers' logits, at prob 0.5, before the student is held to them (multiscale)."
    consistency_weight: float | None
    "Of mean_teacher's term. (at least 0) [default: 1.0]"
    confidence: float | None
    "Least prob, of polyp or of none, at which the averaged weights teach a pixel (mean_teacher). (in [0.5, 1)) [default: 0.9]"
    channels: int | None
    "Of the target: in all for difom and paper, at most so many for each tap for multiscale. (at least 1) [default: 256]"
    bands: bool | None
    "Also compare the low and the high band of each pair (multiscale)."
    recipe: str | None
    "Name of a recipe, or a TOML file; `difom-train recipes` lists them. [default: difom-multiscale]"
    changes: str | Sequence[str] | None
    "Change any setting: key=value, such as phases.0.distillation=0.5; may repeat."
