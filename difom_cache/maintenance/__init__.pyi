from .info import format_info as format_info
from .info import join_caches as join_caches
from .show import DARK as DARK
from .show import TILE_PX as TILE_PX
from .show import find_row as find_row
from .show import map_to_rgb as map_to_rgb
from .show import shown_cells as shown_cells
