"""Painted colonoscopy: numbers of a scene, its surface, its colours, and the camera that looks at it."""
