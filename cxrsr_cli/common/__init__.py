"""What every part uses and no reader of DICOM needs to know: files, configuration, retries."""
