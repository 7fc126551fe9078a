"""Grayscale images from files, for training and evaluation."""
