from .study import list_cells as list_cells
