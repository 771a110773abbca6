"""How fast the project is: for who works on it. `python -m benchmarks` from a checkout; nothing here is installed."""
