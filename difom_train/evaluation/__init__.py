"""Scores of one network on test sets, frame by frame; a study is many of these."""
