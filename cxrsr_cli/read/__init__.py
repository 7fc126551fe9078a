"""Read: from a DICOM file to stored values, or to the reason why not."""
