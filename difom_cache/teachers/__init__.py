"""Picture to features: one teacher a file, the wrapper they share, their weights, their catalogue, pooling to a stride."""
