"""Trains action-conditioned JEPA world models and writes them as safetensors checkpoints."""
