from .benchmarks.loader import bench_loader as bench_loader
from .benchmarks.step import bench_step as bench_step
from .config import TrainConfig as TrainConfig
from .config import read_recipe as read_recipe
from .evaluation.evaluate import evaluate as evaluate
from .inference.export import export as export
from .inference.predict import predict as predict
from .reporting.compare import compare as compare
from .students.base import BOTTLENECK as BOTTLENECK
from .students.base import EncoderDecoder as EncoderDecoder
from .students.base import Level as Level
from .students.base import Student as Student
from .students.base import StudentOutput as StudentOutput
from .students.base import StudentSettings as StudentSettings
from .students.catalogue import build_student as build_student
from .students.necks import build_neck as build_neck
from .students.necks import decoder_input_channels as decoder_input_channels
from .students.saved import load_student as load_student
from .students.saved import save_student as save_student
from .students.wrapped import wrap_student as wrap_student
from .studies.study import study as study
from .training.curves import curves as curves
from .training.run import train as train

__version__: str
