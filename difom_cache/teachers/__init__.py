"""Picture to features: one teacher a file, the wrapper they share, their weights, their catalogue, pooling to a stride."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
