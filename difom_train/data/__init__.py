"""Cache to batches: which rows, in which order, held where, on which device."""
