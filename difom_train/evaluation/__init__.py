"""Scores of one network on test sets, frame by frame; a study is many of these."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
