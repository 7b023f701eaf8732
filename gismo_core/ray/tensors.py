"""torch CPU tensors, so that their bytes go into the store once instead of through torch.save.

Stock Ray pickles a tensor as bytes that torch.save made, and gives the reader a private, writable tensor. What is
here gives the same: an array over the tensor's memory on the way in, one copy on the way out. Acts only while a value is
being serialized for the store. A large tensor is copied by `copied`, whose name is part of what processes of different
versions share; a smaller one names only torch and NumPy.
"""

from __future__ import annotations

import sys
from typing import Any

_LEAST_BYTES = 64 * 1024
# From here on malloc maps fresh pages for the copy whatever was freed before (M_MMAP_THRESHOLD's limit on 64 bits). A third of
# the time of a copy into those is the faults, one for each page.
LARGE_BYTES = 32 << 20
_MADV_POPULATE_WRITE = 23  # Linux 5.14; the module mmap has no name for it


class _State:
    serializing: Any = None  # () -> bool: is this thread serializing for the store?
    installed = False


def install() -> None:
    """torch has been imported, or the integration installed; acts when both have. Safe to repeat."""
    torch: Any = sys.modules.get("torch")
    serialization: Any = sys.modules.get("ray._private.serialization")
    writing: Any = sys.modules.get(
        "gismo_core.ray.writing"
    )  # not imported: it is there if the integration is installed
    if torch is None or serialization is None or writing is None or _State.installed:
        return
    if not hasattr(torch, "Tensor"):
        return  # torch is only half imported: its own import calls us again
    dispatch = serialization.pickle.CloudPickler.dispatch
    if torch.Tensor in dispatch:
        return  # Ray's own zero-copy tensors, or a serializer of the user's
    _State.serializing = writing.serializing
    _State.installed = True
    dispatch[torch.Tensor] = reduce


def reduce(tensor: Any) -> Any:
    """As __reduce_ex__: (callable, arguments)."""
    torch: Any = sys.modules["torch"]
    if (
        not _State.serializing()
        or type(tensor) is not torch.Tensor
        or tensor.device.type != "cpu"
        or tensor.layout is not torch.strided
        or tensor.requires_grad
        or tensor.is_quantized
        or tensor.is_conj()
        or tensor.is_neg()
        or not tensor.is_contiguous()
        or tensor.nelement() * tensor.element_size() < _LEAST_BYTES
        or tensor.__dict__
    ):
        return tensor.__reduce_ex__(5)
    try:
        array = tensor.numpy()
        return torch.tensor if array.nbytes < LARGE_BYTES else copied, (array,)
    except (TypeError, RuntimeError):
        pass  # a type that NumPy has not, such as bfloat16
    same_size = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(tensor.element_size())
    if same_size is None or same_size is tensor.dtype:
        return tensor.__reduce_ex__(5)
    return torch.Tensor.view, (tensor.view(same_size), tensor.dtype)


def copied(array: Any) -> Any:
    """What torch.tensor makes of an array of numbers: a private, writable tensor; its pages are asked for all at once."""
    import ctypes
    import mmap

    import numpy as np
    import torch

    tensor = torch.empty(array.shape, dtype=torch.from_numpy(np.empty(0, array.dtype)).dtype)
    start = tensor.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    length = tensor.data_ptr() + array.nbytes - start
    # Where the kernel does not know it, the copy meets each page.
    ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_POPULATE_WRITE)
    np.copyto(tensor.numpy(), array)
    return tensor
