"""Evaluation: metrics of a trained model and its model card."""
