"""How fast stage one is; nothing that a user's run imports."""
