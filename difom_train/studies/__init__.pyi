from .results import read_results as read_results
from .study import list_cells as list_cells
from .study import tabulate as tabulate
