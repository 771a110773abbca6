from .cells import chunks as chunks
from .lesson import Lesson as Lesson
from .plan import find_labels as find_labels
