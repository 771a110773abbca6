"""The floor: what every room of both packages may import, and what knows none of them."""
