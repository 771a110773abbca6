"""Commands on a cache that exists: say, show, verify, finish, drop, copy, HDF5."""
