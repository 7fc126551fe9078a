"""Read DICOM files and write them."""
