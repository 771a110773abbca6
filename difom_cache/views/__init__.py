"""Augmentation as numbers: view parameters are drawn once and replayed for ever."""
