"""Grayscale images of files of any kind, for training and evaluation."""
