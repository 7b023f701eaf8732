"""What a Gismo namespace is to the kubelet: a resource with so many shares, and what a container with one of them gets.

The kubelet keeps the answer to Allocate, and gives it to a container again at each start of it, over restarts and reboots.
So nothing in it may ever change its meaning: paths carry the UUID of the store, never an index or a name that can be given
anew. The UUID is in the ids of the shares too, so that a container that starts again with a share of a store that is gone
is known, and refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

GROUP = "gismo.io"
DEVICE_FOLDER = "/dev/gismo"  # in the container
STATE_FOLDER = "/run/gismo"  # in the container
RUNTIME_FOLDER = "/opt/gismo"  # in the container
MARKER = "node.json"  # in the state directory
SHARE_VARIABLE = "GISMO_SHARE"  # by which the agent knows whose container a process is of


class Injection(str, Enum):
    """How gismo_core gets into the container, as GismoPool.spec.runtimeInjection says."""

    USER_SITE = "UserSite"
    PYTHON_PATH = "PythonPath"
    OFF = "Off"


@dataclass(frozen=True, slots=True)
class Tenant:
    """One Gismo namespace on this node."""

    pool: str
    namespace: str
    store_uuid: str
    shares: int
    memory: str  # path on the node: a file, or a character device
    is_device: bool
    state: str  # path on the node: the state directory of this store
    runtime: str = ""  # path on the node: the folder that holds gismo_core
    injection: Injection = Injection.USER_SITE
    kubernetes_namespaces: frozenset[str] = frozenset()

    @property
    def resource(self) -> str:
        """As pods ask for it."""
        return f"{GROUP}/{self.pool}.{self.namespace}"


@dataclass(frozen=True, slots=True)
class Mount:
    """A path of the node in a container."""

    host_path: str
    container_path: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """To Allocate, for one container."""

    envs: Mapping[str, str]
    mounts: tuple[Mount, ...]
    devices: tuple[Mount, ...] = field(default=())


class Refused(RuntimeError):
    """Why a container may not have a share: for the pod's events, so in words that say what to do."""


def ids(tenant: Tenant) -> list[str]:
    """Of all shares."""
    return [f"{tenant.store_uuid}_{number}" for number in range(tenant.shares)]


def store_of(share: str) -> str:
    """The UUID of the store that a share is of."""
    return share.rpartition("_")[0]


def check_one(tenant: Tenant, asked: Sequence[str]) -> None:
    """One share a container, of this store; else Refused."""
    if len(asked) != 1:
        raise Refused(
            f"a container gets one share of {tenant.resource}, and asks for {len(asked)}: write `{tenant.resource}: 1`"
        )
    if store_of(asked[0]) != tenant.store_uuid:
        raise Refused(
            f"this share of {tenant.resource} is of a store that is gone ({store_of(asked[0])}): delete the pod, so that a new "
            "one gets a share of the store that is there now"
        )


def answer(tenant: Tenant, share: str) -> Answer:
    """What a container with this share gets."""
    store = f"{DEVICE_FOLDER}/{tenant.store_uuid}"
    state = f"{STATE_FOLDER}/{tenant.store_uuid}"
    envs = {
        "GISMO_STORE": f"{'dax' if tenant.is_device else 'file'}:{store}",
        "GISMO_STATE_DIR": state,
        "GISMO_NODE_MARKER": f"{state}/{MARKER}",
        SHARE_VARIABLE: share,
    }
    mounts = [Mount(tenant.state, state)]
    memory = Mount(tenant.memory, store)
    if not tenant.is_device:
        mounts.append(memory)
    if tenant.injection is not Injection.OFF:
        mounts.append(Mount(tenant.runtime, RUNTIME_FOLDER, read_only=True))
        if tenant.injection is Injection.USER_SITE:
            envs["PYTHONUSERBASE"] = RUNTIME_FOLDER
        else:
            envs["PYTHONPATH"] = f"{RUNTIME_FOLDER}/boot"
    return Answer(envs, tuple(mounts), (memory,) if tenant.is_device else ())
