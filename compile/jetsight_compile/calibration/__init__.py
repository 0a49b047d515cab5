"""Calibration data: recorded episodes, samples for quantizers, and graphs run over them."""
