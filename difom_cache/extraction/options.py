"""The options of `difom-cache extract`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from difom_cache.base.options import Batch, CodecName, Count, Epochs, Opt, Positive, SidePx
from difom_cache.data.options import DataOptions
from difom_cache.teachers.base import Backend, Precision

MOST_VIEWS = (
    10_000  # of a record: more than any run has epochs, and a plan of a few thousand records still fits into memory
)


Plan = Literal["default", "flips", "pad", "plain"]
PLANS: tuple[str, ...] = get_args(Plan)


class ExtractConfig(DataOptions):
    """What `difom-cache extract` does."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Data": ("data", "images", "masks", "group_by", "every", "unlabelled", "negatives", "split", "limit"),
        "Views": ("views", "seed", "plan", "input_size", "pictures", "public"),
        "Features": ("like", "weights", "strides", "codec", "taps"),
        "Machine": ("device", "precision", "batch_size", "compile", "backend"),
        "Many workers": ("engine", "workers", "scheduler", "jobs", "part"),
        "Estimate": ("epochs", "runs", "dry_run", "measure", "force"),
    }

    teacher: Annotated[tuple[str, ...] | None, Opt(whole=True, default="those of --like")] = None
    "NAME[:VARIANT][@PX], as listed by `difom-cache teachers`; may repeat. In Python, () caches views alone."
    cache: Path = Path("feats")
    "Folder to fill."
    like: Path | None = None
    "Cache to match: use its views, teachers, taps and codecs for new records, so that both can be trained on together."
    weights: Annotated[tuple[str, ...], Opt(whole=True)] = ("hub",)
    "hub, hub@REVISION, random or a path, for all teachers; NAME=WEIGHTS for one; may repeat."
    views: Annotated[Positive, Field(le=MOST_VIEWS)] = 8
    "Views of each training record; view 0 is the plain resize."
    seed: Count = 0
    "Random seed of the view plan."
    plan: Plan = "default"
    "View policy; `difom-cache plans` lists them."
    input_size: SidePx = 352
    "Side of the stored images in px; strides refer to it."
    strides: tuple[SidePx, ...] | None = None
    "Strides at which features are stored, in image px, such as 8,16,32; by default each teacher's own."
    codec: CodecName = "int8"
    "How features are stored; compact can only finish columns that were started with it."
    taps: tuple[str, ...] | None = None
    "Taps to keep, such as block5@16,block11@32; by default those of a column that was started, else each teacher's own."
    split: Annotated[tuple[Literal["train", "val", "test"], ...], Field(min_length=1)] = ("train", "val")
    "Splits to cache."
    limit: Positive | None = None
    "Use at most N records of each split; all by default."
    pictures: bool = True
    "Also store the augmented images and masks."
    device: str = "auto"
    "auto, cpu, cuda or cuda:N."
    precision: Precision | None = None
    "Precision of the teachers; by default bfloat16 on CUDA and float32 elsewhere."
    batch_size: Batch | None = None
    "Views in a teacher's batch; by default found by trial."
    compile: bool = False
    "Run teachers through torch.compile."
    backend: Annotated[Backend | None, Opt(default="DIFOM_BACKEND, or auto")] = None
    "What runs networks; auto = as a column was started, else OpenVINO on a CPU if it is installed, else PyTorch."
    engine: Literal["local", "dask", "slurm", "pbs", "lsf", "sge", "htcondor"] = "local"
    "Where the work runs: on this machine, or as jobs of a scheduler."
    workers: Batch | None = None
    "Number of processes or jobs."
    scheduler: str | None = None
    "Address of a running Dask scheduler."
    jobs: Path | None = None
    "TOML file with job options."
    part: str | None = None
    "I/N: compute every N-th block, starting with the I-th."
    epochs: Epochs = 75
    "Epochs of each training run, for the estimate; the paper uses 75."
    runs: Positive = 1
    "Number of training runs, for the estimate."
    dry_run: bool = False
    "Stop after the estimate."
    measure: bool = False
    "With --dry-run: also run each teacher on two batches, and say how long all views take on this machine, and the memory."
    force: bool = False
    "Continue even if the disk looks too small."
    public: bool = False
    "Let others read the folder of stored images, as far as the umask allows."
