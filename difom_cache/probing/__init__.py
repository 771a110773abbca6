"""`difom-cache probe`: from a teacher's features and some masks to logits of every view, with no teacher pass."""
