"""Make the derived DICOM object from a source object and upscaled pixels."""
