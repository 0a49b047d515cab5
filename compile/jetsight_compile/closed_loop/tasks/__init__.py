"""Tasks of an evaluation: success, distances to the goal, and columns of a keep-out region."""
