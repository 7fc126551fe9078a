"""Serve: a DICOM node that receives, upscales, and passes on."""
