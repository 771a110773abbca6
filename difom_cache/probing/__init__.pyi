from .cells import chunks as chunks
from .cells import dice_of as dice_of
from .heads import KINDS as KINDS
from .lesson import Lesson as Lesson
from .live import LiveProbe as LiveProbe
from .options import ProbeConfig as ProbeConfig
from .plan import find_labels as find_labels
from .plan import settle_head as settle_head
