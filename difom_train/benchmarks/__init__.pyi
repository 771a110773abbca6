from .cost import Cost as Cost
from .cost import CostTable as CostTable
from .cost import compare_costs as compare_costs
from .cost import count_flops as count_flops
from .cost import measure_cost as measure_cost
from .cost import time_passes as time_passes
from .published_costs import PublishedCost as PublishedCost
from .published_costs import read_published_costs as read_published_costs
