"""torch CPU tensors, so that their bytes go into the store once instead of through torch.save.

Stock Ray pickles a tensor as bytes that torch.save made, and gives the reader a private, writable tensor. What is
here gives the same: an array over the tensor's memory on the way in, one copy on the way out. It names only torch and
NumPy, so a reader needs nothing of ours. Acts only while a value is being serialized for the store.
"""

from __future__ import annotations

import sys
from typing import Any

_LEAST_BYTES = 64 * 1024


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
        return torch.tensor, (tensor.numpy(),)
    except (TypeError, RuntimeError):
        pass  # a type that NumPy has not, such as bfloat16
    same_size = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(tensor.element_size())
    if same_size is None or same_size is tensor.dtype:
        return tensor.__reduce_ex__(5)
    return torch.Tensor.view, (tensor.view(same_size), tensor.dtype)
