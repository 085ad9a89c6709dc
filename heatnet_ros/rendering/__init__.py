"""Scenes and their images: one description, a rasteriser, a sensor model. No torch, no ROS."""
