from .picture import paint as paint
from .sample import TEST_STYLES as TEST_STYLES
from .scene import Style as Style
from .scene import draw_scene as draw_scene
from .texture import draw_textures as draw_textures
