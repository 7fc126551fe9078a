"""Super-resolution of chest radiographs, DICOM in, derived DICOM out.

Not a medical device; not for diagnosis.
"""

__version__ = "0.1.0"
