"""Files: atomic writes, strict JSON, plain tar archives, ownership and locks."""
