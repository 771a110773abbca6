"""How fast and how large: steps, readers, FLOPs, latency."""
