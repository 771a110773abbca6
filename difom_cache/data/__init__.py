"""What lies on the user's disk: picture files and manifests become checked records; duplicates and leaks are found."""
