"""`fw sweep`: a recipe whose arms are the points of a grid, fixed before or chosen by a search."""
