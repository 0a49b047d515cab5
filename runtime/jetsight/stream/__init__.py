"""The real-time stream: frames in, histories, forecasts with their evidence out."""
