"""The world model: configuration, preprocessing, encoders, predictor and heads."""
