"""Networks: one architecture a file, how they are saved and loaded, their catalogue."""
