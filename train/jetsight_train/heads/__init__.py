"""What a frozen world model's latents tell beside the forecast: physical values, hazards, doubt."""
