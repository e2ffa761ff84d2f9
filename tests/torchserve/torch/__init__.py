"""A stub in the place of PyTorch, for tests of inferprobe that need TorchServe's frontend and workers but no tensors.

Only what TorchServe 0.12.0 touches while it imports its worker and its base handler is here.
"""

__version__ = "0.0.0+stub"


class Tensor:
    """The type that a worker compares each answer with; nothing is ever one."""


class cuda:
    """A machine without a GPU."""

    @staticmethod
    def is_available():
        return False

    @staticmethod
    def device_count():
        return 0
