"""Large new tensors in huge pages.

The system hands memory out in pages of 4 KiB, each at a fault of its own: writing a fresh gradient
of 64 MiB takes three times as long as writing it again, longer than the arithmetic of most losses.
Huge pages leave one fault in 512. Linux gives them to those who ask (``madvise``), and the memory
goes back with the tensor; elsewhere nothing happens.

The system has to find them first. Beside a model whose tensors come and go in small pages that took
up to 4 ms for each: 100 to 200 ms for the blocks of a linear head, which would gain 35. Those do
not ask.
"""

import ctypes
import mmap
from collections.abc import Callable
from typing import Any

from torch import Tensor

# What the C library maps anew each time and gives back at once; smaller memory it uses again
FRESH = 1 << 25
_HUGE: int | None = getattr(mmap, "MADV_HUGEPAGE", None)


def in_huge_pages(tensor: Tensor) -> Tensor:
    """A tensor that nothing has been written to yet, its memory in huge pages if it is large."""
    if tensor.is_cpu and tensor.nbytes > FRESH and _advise is not None:
        first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        last = tensor.data_ptr() + tensor.nbytes
        _advise(first, (last - first) // mmap.PAGESIZE * mmap.PAGESIZE, _HUGE)
    return tensor


def _find() -> Callable[..., Any] | None:
    if _HUGE is None:
        return None
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return advise  # it may refuse, where the system has no such pages: then nothing is lost


_advise = _find()
