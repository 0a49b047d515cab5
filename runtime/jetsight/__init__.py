"""Live latent forecasts from a compiled world model: what a robot imports."""
