"""Bytes on disk, FORMAT.md as code: whoever reads or writes a byte of a cache is here."""
