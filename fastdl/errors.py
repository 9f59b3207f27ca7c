"""The exceptions a user can meet.

Every one is a :class:`FastdlError`, and also the built-in exception that NumPy
would raise in its place, so ``except ValueError`` catches what it should.
"""


class FastdlError(Exception):
    """Base of every error that fastdl raises on purpose."""


class ArgumentError(FastdlError, ValueError):
    """An argument has a value that the call cannot use."""


class ShapeError(ArgumentError):
    """An array's shape does not fit the call, or the call's other arrays."""


class OutputError(ArgumentError):
    """The array given as ``out`` cannot take the result."""


class DTypeError(FastdlError, TypeError):
    """An argument is of a type, or an array of a dtype, that is not served."""


class BackendError(FastdlError, ValueError):
    """A backend's name is unknown, or this machine does not have that backend."""


class DataError(FastdlError, ValueError):
    """A file or a data set is not what its name promises."""


class MissingPackageError(FastdlError, ImportError):
    """An optional package is needed for this call; the message says how to get it."""


class DeviceError(ArgumentError):
    """The arrays of one call are not all in the memory of one device."""


class DeviceMemoryError(FastdlError, MemoryError):
    """A GPU has not so much memory left; its context works on."""
