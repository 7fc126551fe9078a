"""Send: files to an application entity, a DICOMweb service or a folder."""
