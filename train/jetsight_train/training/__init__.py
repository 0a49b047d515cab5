"""Training loops: world model and heads, with resume."""
