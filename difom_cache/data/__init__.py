"""What lies on the user's disk: picture files and manifests become checked records; duplicates and leaks are found."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
