"""Features to loss terms: which tap teaches which level, targets, comparison, one kind of distillation a file."""
