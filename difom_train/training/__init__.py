"""`difom-train`: one run, built, trained, validated and kept; everything that touches the run folder while it trains."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
