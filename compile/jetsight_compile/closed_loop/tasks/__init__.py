"""Tasks of an evaluation: what success is, in which units a miss is told, where a region lies."""
