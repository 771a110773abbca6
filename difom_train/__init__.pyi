from .config import TrainConfig as TrainConfig
from .config import read_recipe as read_recipe
from .data.own_batches import CacheDataset as CacheDataset
from .data.own_batches import CacheLoader as CacheLoader
from .evaluation.evaluate import evaluate as evaluate
from .inference.export import export as export
from .inference.predict import predict as predict
from .reporting.compare import compare as compare
from .students.base import EncoderDecoder as EncoderDecoder
from .students.base import Student as Student
from .students.base import StudentOutput as StudentOutput
from .students.base import StudentSettings as StudentSettings
from .students.catalogue import build_student as build_student
from .students.saved import load_student as load_student
from .students.saved import save_student as save_student
from .students.wrapped import WrappedStudent as WrappedStudent
from .students.wrapped import wrap_student as wrap_student
from .studies.study import study as study
from .training.curves import curves as curves
from .training.losses import segmentation_loss as segmentation_loss
from .training.own_loop import LoopDistiller as LoopDistiller
from .training.own_loop import build_distiller as build_distiller
from .training.run import train as train

__version__: str
