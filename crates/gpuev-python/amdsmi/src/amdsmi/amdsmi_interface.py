"""Where the vendor's package has its functions and types."""

from gpuev.amdsmi import *  # noqa: F403
from gpuev.amdsmi import __all__ as __all__
