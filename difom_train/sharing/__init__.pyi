from .app import mark as mark
from .app import open_server as open_server
from .card import describe_run as describe_run
from .hub import FILES as FILES
from .hub import pull as pull
from .hub import push as push
