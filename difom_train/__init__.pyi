from .benchmarks.loader import bench_loader as bench_loader
from .benchmarks.step import bench_step as bench_step
from .config import TrainConfig as TrainConfig
from .config import read_recipe as read_recipe
from .evaluation.evaluate import evaluate as evaluate
from .inference.export import export as export
from .inference.predict import predict as predict
from .reporting.compare import compare as compare
from .students.catalogue import build_student as build_student
from .students.saved import load_student as load_student
from .studies.study import study as study
from .training.curves import curves as curves
from .training.run import train as train

__version__: str
