"""The world model: geometry, encoders, predictor and the three verbs."""
