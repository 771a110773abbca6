from .files import read_set as read_set
from .files import read_summary as read_summary
from .metrics import score_fixed as score_fixed
from .metrics import score_pranet as score_pranet
from .score_frames import read_map as read_map
from .several import Evaluations as Evaluations
from .several import evaluate_runs as evaluate_runs
from .summary import METRICS as METRICS
