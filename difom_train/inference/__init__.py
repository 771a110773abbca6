"""A trained network in use: pictures or video in, masks out; the same network as one exported file."""
