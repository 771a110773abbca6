from .draw import POLICIES as POLICIES
from .draw import ViewPolicy as ViewPolicy
from .draw import draw_params as draw_params
from .draw import draw_table as draw_table
from .draw import policy_named as policy_named
from .params import COLUMNS as COLUMNS
from .plan import ViewPlan as ViewPlan
