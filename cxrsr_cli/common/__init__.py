"""Files, configuration, retries and other helpers that know nothing about DICOM."""
