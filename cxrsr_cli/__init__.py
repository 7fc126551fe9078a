"""Super-resolution of chest radiographs, DICOM in, derived DICOM out.

Not a medical device; not for diagnosis.
"""

import logging

__version__ = "0.1.0"

# Without a handler, Python would write warnings of the library to stderr.
logging.getLogger(__name__).addHandler(logging.NullHandler())
