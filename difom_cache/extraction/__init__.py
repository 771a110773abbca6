"""`difom-cache extract`, readable from run.py downwards: rows, what is missing, columns, blocks, engines, estimates."""
