"""Checkpoints, shapes, shrunk models and how their layers are split over stages."""
