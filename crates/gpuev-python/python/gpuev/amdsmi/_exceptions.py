"""The exceptions of the documented API, with its attributes and texts."""

from __future__ import annotations

import copyreg
from enum import IntEnum


class AmdSmiRetCode(IntEnum):
    """Status codes of the library."""

    SUCCESS = 0
    INVAL = 1
    NOT_SUPPORTED = 2
    NOT_YET_IMPLEMENTED = 3
    FAIL_LOAD_MODULE = 4
    FAIL_LOAD_SYMBOL = 5
    DRM_ERROR = 6
    API_FAILED = 7
    TIMEOUT = 8
    RETRY = 9
    NO_PERM = 10
    INTERRUPT = 11
    IO = 12
    ADDRESS_FAULT = 13
    FILE_ERROR = 14
    OUT_OF_RESOURCES = 15
    INTERNAL_EXCEPTION = 16
    INPUT_OUT_OF_BOUNDS = 17
    INIT_ERROR = 18
    REFCOUNT_OVERFLOW = 19
    DIRECTORY_NOT_FOUND = 20
    BUSY = 30
    NOT_FOUND = 31
    NOT_INIT = 32
    NO_SLOT = 33
    DRIVER_NOT_LOADED = 34
    MORE_DATA = 39
    NO_DATA = 40
    INSUFFICIENT_SIZE = 41
    UNEXPECTED_SIZE = 42
    UNEXPECTED_DATA = 43
    NON_AMD_CPU = 44
    FILE_NOT_FOUND = 52
    ARG_PTR_NULL = 53
    AMDGPU_RESTART_ERR = 54
    SETTING_UNAVAILABLE = 55
    CORRUPTED_EEPROM = 56
    MAP_ERROR = 0xFFFFFFFE
    UNKNOWN_ERROR = 0xFFFFFFFF


_MEANINGS = {
    0: "Call succeeded",
    1: "Invalid parameters",
    2: "Feature not supported",
    3: "Feature not yet implemented",
    4: "Fail to load module",
    5: "Fail to load symbol",
    6: "Error when called libdrm",
    7: "API call failed",
    8: "Timeout in API call",
    9: "Retry operation",
    10: "Permission Denied",
    11: "Interrupt occurred during execution",
    12: "I/O Error",
    13: "Bad address",
    14: "Error opening file",
    15: "Not enough memory",
    16: "Internal error",
    17: "Out of bounds",
    18: "Initialization error",
    19: "Internal reference counter exceeded INT32_MAX",
    20: "Directory not found",
    30: "Device busy",
    31: "Device Not found",
    32: "Device not initialized",
    33: "No more free slot",
    34: "Processor driver not loaded",
    39: "More data than the buffer can hold",
    40: "No data was found for given input",
    41: "Insufficient size for operation",
    42: "unexpected size of data was read",
    43: "The data read or provided was unexpected",
    44: "System has non-AMD CPU",
    52: "File or directory not found",
    53: "Parsed argument is invalid",
    54: "AMDGPU restart failed",
    55: "Setting is not available",
    56: "EEPROM is corrupted",
    0xFFFFFFFE: "The internal library error did not map to a status code",
}


class AmdSmiException(Exception):
    """Any exception of the documented API. It can be copied and pickled: worker processes may raise it."""

    def __reduce__(self) -> tuple[object, ...]:
        # Not by its constructor, whose parameters are not its `args`.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class AmdSmiLibraryException(AmdSmiException):
    """The library failed.

    Attributes:
        err_code (int): status code, see `AmdSmiRetCode`
        err_info (str): name and meaning of the code

    Where the operating system is the reason, `__cause__` says which call failed and what to do.
    """

    def __init__(self, err_code: int) -> None:
        err_code = abs(err_code)
        super().__init__(err_code)
        self.err_code = err_code
        self.set_err_info()

    def __str__(self) -> str:
        return f"Error code:\n\t{self.err_code} | {self.err_info}"

    def get_error_info(self, detailed: bool = True) -> str:
        """The code's name, and with `detailed` its meaning."""
        return self.err_info if detailed else self.err_info.split(" - ")[0]

    def get_error_code(self) -> int:
        """The code."""
        return self.err_code

    def set_err_info(self) -> None:
        """Sets `err_info` by `err_code`."""
        meaning = _MEANINGS.get(self.err_code)
        if meaning is None:
            self.err_info = "AMDSMI_STATUS_UNKNOWN_ERROR - An unknown error occurred"
        else:
            self.err_info = f"AMDSMI_STATUS_{AmdSmiRetCode(self.err_code).name} - {meaning}"


class AmdSmiRetryException(AmdSmiLibraryException):
    """The operation is to be tried again."""

    def __init__(self) -> None:
        super().__init__(AmdSmiRetCode.RETRY)


class AmdSmiTimeoutException(AmdSmiLibraryException):
    """The operation took too long."""

    def __init__(self) -> None:
        super().__init__(AmdSmiRetCode.TIMEOUT)


class AmdSmiParameterException(AmdSmiException):
    """A parameter is wrong.

    Attributes:
        actualType (type): the type that was given
        expectedType: what was expected
        err_msg (str): the text
        err_code (None): a wrong parameter has no status code
    """

    def __init__(self, receivedValue: object, expectedType: object, msg: str | None = None) -> None:
        super().__init__(msg)
        self.err_code = None
        self.actualType = type(receivedValue)
        self.expectedType = expectedType
        self.set_err_msg()
        if msg is not None:
            self.err_msg = msg

    def set_err_msg(self) -> None:
        """Sets `err_msg` by the types."""
        self.err_msg = (
            f"Invalid parameter:\nActual type: {self.actualType}\nExpected type: {self.expectedType}"
        )

    def __str__(self) -> str:
        return self.err_msg


class AmdSmiKeyException(AmdSmiException):
    """A dictionary lacks a key.

    Attributes:
        key (str): the key
        err_msg (str): the text
    """

    def __init__(self, key: str, err_msg: str | None = None) -> None:
        super().__init__(key)
        self.key = key
        self.err_msg = err_msg if err_msg is not None else f"Key {key} is missing from dictionary"

    def __str__(self) -> str:
        return self.err_msg


class AmdSmiBdfFormatException(AmdSmiException):
    """What was given is not a PCI address.

    Attributes:
        bdf (str): what was given
    """

    def __init__(self, bdf: str) -> None:
        super().__init__(bdf)
        self.bdf = bdf

    def __str__(self) -> str:
        return (
            f"Wrong BDF format: {self.bdf}. \n"
            "BDF string should be: <domain>:<bus>:<device>.<function>\n"
            " or <bus>:<device>.<function> in hexcode format.\n"
            "Where:\n\t<domain> is 4 hex digits long from 0000-FFFF interval\n"
            "\t<bus> is 2 hex digits long from 00-FF interval\n"
            "\t<device> is 2 hex digits long from 00-1F interval\n"
            "\t<function> is 1 hex digit long from 0-7 interval"
        )


__all__ = [
    "AmdSmiBdfFormatException",
    "AmdSmiException",
    "AmdSmiKeyException",
    "AmdSmiLibraryException",
    "AmdSmiParameterException",
    "AmdSmiRetCode",
    "AmdSmiRetryException",
    "AmdSmiTimeoutException",
]
