"""Scores of frames, gathered into tables and compared between runs."""
