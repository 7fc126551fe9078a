"""What stopped one file, as an error that may be shown and kept."""

from cxrsr_cli.errors import CxrsrError, InternalError, MemoryLimitError, OutputError


def to_reportable_error(error: Exception) -> CxrsrError:
    """Turn what stopped one file into an error that may be shown and kept.

    Parameters
    ----------
    error : Exception
        As caught.

    Returns
    -------
    CxrsrError
        Free of patient data, and without a traceback.
    """
    # PyTorch's allocator on a CPU raises no MemoryError.
    allocator = isinstance(error, RuntimeError) and "allocate memory" in str(error)
    if isinstance(error, CxrsrError):
        # Results are kept to the end of the run; a traceback keeps the pixels.
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    if isinstance(error, OSError):
        return OutputError(f"cannot read or write: {error.strerror}")
    if isinstance(error, MemoryError) or allocator:
        return MemoryLimitError("not enough memory for this image")
    return InternalError.of(error)
