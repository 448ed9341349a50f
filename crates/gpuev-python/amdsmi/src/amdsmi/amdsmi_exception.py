"""Where the vendor's package has its exceptions."""

from gpuev.amdsmi import (
    AmdSmiBdfFormatException as AmdSmiBdfFormatException,
    AmdSmiException as AmdSmiException,
    AmdSmiKeyException as AmdSmiKeyException,
    AmdSmiLibraryException as AmdSmiLibraryException,
    AmdSmiParameterException as AmdSmiParameterException,
    AmdSmiRetCode as AmdSmiRetCode,
    AmdSmiRetryException as AmdSmiRetryException,
    AmdSmiTimeoutException as AmdSmiTimeoutException,
)
