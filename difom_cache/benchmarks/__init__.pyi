from .extraction import WAYS as WAYS
from .extraction import format_bench as format_bench
from .extraction import measure_matmul as measure_matmul
from .library_teachers import PLAIN as PLAIN
from .library_teachers import build_plain as build_plain
