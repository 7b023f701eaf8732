"""`gismo.io/v1alpha1`: GismoPool, GismoNamespace, GismoNode. docs/kubernetes.md says what each field means.

Field names are Kubernetes' (camelCase) outside and Python's inside. What a field's type cannot say stands in CEL rules,
which the API server checks; what cannot be said there either is found by reconciling, and becomes a condition.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from gismo_operator.api import quantity
from gismo_operator.api.rules import DNS_LABEL, dns_label, fixed, is_whole, rule, same_size, size_rules, whole

GROUP = "gismo.io"
VERSION = "v1alpha1"

MAX_HOSTS = 64
MAX_NAMESPACES = 128
MAX_SHARES = 256
_NAMES_TOGETHER = 62  # POOL.NAMESPACE is the name of an extended resource, of at most 63 characters
_QUANTITY_CHARACTERS = 20


def _size(description: str, least_bytes: int, least: str, *more: dict[str, Any]) -> Any:
    """A quantity of bytes. In the CRD an integer or a string, as Kubernetes has them."""
    return Annotated[
        str,
        BeforeValidator(str),
        WithJsonSchema(
            {
                "anyOf": [{"type": "integer"}, {"type": "string"}],
                "x-kubernetes-int-or-string": True,
                "maxLength": _QUANTITY_CHARACTERS,
                "description": description,
                "x-kubernetes-validations": [*size_rules(least_bytes, least), *more],
            }
        ),
    ]


class Model(BaseModel):
    """What all of them have in common."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


# ---- GismoPool ----------------------------------------------------------------------------------------------------------


class Coherence(str, Enum):
    """Do the hosts' caches see one another's writes?"""

    HARDWARE = "hardware"
    SOFTWARE = "software"


class RuntimeInjection(str, Enum):
    """How gismo_core gets into containers."""

    USER_SITE = "UserSite"
    PYTHON_PATH = "PythonPath"
    OFF = "Off"


class ReclaimPolicy(str, Enum):
    """What happens to the data of a Gismo namespace that is taken out of the list."""

    DELETE = "Delete"
    RETAIN = "Retain"


class DaxMatch(Model):
    """How each node finds its end of the same memory: all that is given must fit, and exactly one region of the node."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "has(self.size) || has(self.serial) || has(self.region) || has(self.uuid)",
                    "say at least one of size, serial, region, uuid; the agent's annotation "
                    "gismo.io/regions on each Node lists what there is",
                )
            ]
        }
    )

    size: _size("Size of the region, such as 512Gi.", quantity.MIB * 2, "2Mi") | None = None  # type: ignore[valid-type]
    serial: str | None = Field(None, max_length=64, description="Serial number of the CXL memory device.")
    region: str | None = Field(
        None,
        max_length=64,
        description="Name of the region in Linux.",
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "self.matches('^region[0-9]+$')",
                    "must be a name such as region0; the annotation gismo.io/regions on each Node lists what there is",
                )
            ]
        },
    )
    uuid: str | None = Field(
        None, max_length=36, description="UUID of the region; Linux gives regions of mode ram none."
    )


class Dax(Model):
    """CXL memory: a region of each node from which DAX devices are carved."""

    match: DaxMatch = Field(description="How each node finds its end of the same memory.")


class Emulated(Model):
    """Memory of the machine that plays the part of CXL memory; for one machine, such as kind."""

    capacity: _size(  # type: ignore[valid-type]
        "How much there is for Gismo namespaces; the pool label comes on top.", quantity.MIB * 32, "32Mi"
    )
    directory: str = Field(
        "/var/lib/gismo/emulated",
        max_length=64,
        description="Absolute path of a directory on tmpfs or hugetlbfs that is the same memory on all nodes.",
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    r"self.matches('^(/[-_.a-zA-Z0-9]+)+/?$') && !self.matches('/[.][.]?(/|$)')",
                    "must be an absolute path of letters, digits, -, _ and dots, without . and .. as parts",
                )
            ]
        },
    )


class Source(Model):
    """The memory of a pool: exactly one of these."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule("has(self.dax) != has(self.emulated)", "say exactly one of dax and emulated"),
            ]
        }
    )

    dax: Dax | None = Field(None, description="CXL memory.")
    emulated: Emulated | None = Field(None, description="Memory of the machine, to try it without CXL.")


_KubernetesNamespaces = list[Annotated[str, Field(max_length=63)]]


def _whose(list_type: str) -> Any:
    names = f"self.all(n, n.matches('{DNS_LABEL}'))"
    return Field(
        default_factory=list,
        max_length=64,
        description="Names of Kubernetes namespaces; empty: nobody's pods.",
        json_schema_extra={
            "x-kubernetes-list-type": list_type,
            "default": [],
            "x-kubernetes-validations": [
                rule(
                    names,
                    "must be names of Kubernetes namespaces: small letters, digits and -; patterns such as * are not understood",
                )
            ],
        },
    )


class Access(Model):
    """Whose pods may have a share."""

    kubernetes_namespaces: _KubernetesNamespaces = _whose("set")


class NamespaceSpec(Model):
    """A Gismo namespace as it is asked for: a part of the pool for one tenant."""

    name: str = Field(
        min_length=1,
        max_length=61,
        description="A DNS label. The resource that pods ask for is gismo.io/POOL.NAME.",
        json_schema_extra={
            "x-kubernetes-validations": [
                dns_label(),
                rule("!self.endsWith('gpu')", "must not end in gpu: KubeRay takes such a resource for a GPU"),
            ]
        },
    )
    size: _size(  # type: ignore[valid-type]
        "How much memory it has; cannot be changed.",
        quantity.MIB * 32,
        "32Mi",
        same_size("the size cannot be changed: add another namespace, and remove this one"),
    )
    shares_per_node: int = Field(
        64, ge=1, le=MAX_SHARES, description="How many containers of a node may map it at a time."
    )
    reclaim_policy: ReclaimPolicy = Field(
        ReclaimPolicy.DELETE,
        description="What happens to its data when it is taken out of the list: Delete zeroes it, Retain keeps it for "
        "the same name.",
    )
    access: Access = Field(
        default_factory=Access, description="Whose pods may have a share.", json_schema_extra={"default": {}}
    )


class PoolSpec(Model):
    """What you want of a pool."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "!has(self.source.dax) || has(self.coherence)",
                    "say coherence: hardware or software, for a dax source; the CXL device's vendor says which",
                ),
                rule(
                    "!has(self.source.emulated) || !has(self.coherence) || self.coherence == 'hardware'",
                    "emulated memory is one machine's, so its coherence is hardware",
                ),
                # Of a pool alone: its GismoNodes outlive it, and get the memory of the next one of its name.
                fixed("a pool keeps its memory: make another pool", "source"),
                rule(
                    "!has(oldSelf.coherence) || (has(self.coherence) && self.coherence == oldSelf.coherence)",
                    "the coherence cannot be changed: the stores were formatted for it",
                ),
                rule(
                    "!has(self.source.emulated) || !has(self.namespaces) || "
                    f"!({is_whole('self.source.emulated.capacity')}) || "
                    f"!self.namespaces.all(n, {is_whole('n.size')}) || "
                    f"self.namespaces.map(n, {whole('n.size')}).sum() <= {whole('self.source.emulated.capacity')}",
                    "the namespaces are larger than spec.source.emulated.capacity together: ask for less, or make another pool",
                ),
            ]
        }
    )

    source: Source = Field(description="The memory.")
    coherence: Coherence | None = Field(
        None,
        description="Do the nodes' caches see one another's writes? Required for dax; emulated memory is hardware.",
    )
    node_selector: dict[str, Annotated[str, Field(max_length=63)]] = Field(
        default_factory=dict,
        max_length=16,
        description="Labels of the nodes that reach the memory; empty: all that have an agent.",
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "self.all(k, !format.qualifiedName().validate(k).hasValue() && "
                    "!format.labelValue().validate(self[k]).hasValue())",
                    "must be labels as nodes have them: `kubectl get nodes --show-labels`; expressions are not understood",
                )
            ]
        },
    )
    runtime_injection: RuntimeInjection = Field(
        RuntimeInjection.USER_SITE,
        description="How gismo_core gets into containers: by PYTHONUSERBASE, by PYTHONPATH, or not at all.",
    )
    namespaces: list[NamespaceSpec] = Field(
        default_factory=list,
        max_length=MAX_NAMESPACES,
        description="How the memory is divided.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )


class ConditionStatus(str, Enum):
    """As in Kubernetes."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    """As Kubernetes' metav1.Condition."""

    type: str = Field(max_length=64, description="What it is about.")
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: str = Field(
        min_length=1, max_length=64, pattern=r"^[A-Za-z]+$", description="Why, in one word for programs."
    )
    message: str = Field(max_length=4096, description="Why, for people: what is wrong and what to do.")
    last_transition_time: str = Field(
        description="When the status last changed.", json_schema_extra={"format": "date-time"}
    )
    observed_generation: int | None = Field(None, ge=0, description="The generation of the spec that this is about.")


_CONDITIONS: Any = Field(
    default_factory=list,
    max_length=8,
    description="What is so and what is not.",
    json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
)


class PoolStatus(Model):
    """What was observed. Nothing in it changes with traffic."""

    observed_generation: int | None = Field(None, description="The generation of the spec that the status is about.")
    layout_version: int | None = Field(None, ge=0, description="Grows with each change of ranges or host ids.")
    capacity: str | None = Field(None, description="What can be handed out; absent until a node has seen the memory.")
    allocated: str | None = Field(None, description="What Gismo namespaces take.")
    free: str | None = Field(None, description="What is left.")
    largest_free: str | None = Field(None, description="The largest Gismo namespace that could be added now.")
    namespaces_ready: str | None = Field(None, description='Gismo namespaces that are ready, such as "2/3".')
    nodes_ready: str | None = Field(None, description='Nodes that are ready, such as "2/3".')
    conditions: list[Condition] = _CONDITIONS


# ---- GismoNamespace -----------------------------------------------------------------------------------------------------


class RangeState(str, Enum):
    """Where a range stands."""

    ACTIVE = "Active"
    RETAINED = "Retained"
    RELEASING = "Releasing"
    QUARANTINED = "Quarantined"


class RangeAccess(Model):
    """As in the pool; not a set: of one, server-side apply takes away only what was applied, and the first list is created."""

    kubernetes_namespaces: _KubernetesNamespaces = _whose("atomic")


class RangeSpec(Model):
    """A range of a pool's memory; agents read it here."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                fixed("a range never moves while it exists", "pool", "namespace", "offsetBytes", "sizeBytes")
            ]
        }
    )

    pool: str = Field(max_length=61, description="The pool that it is of.")
    namespace: str = Field(max_length=61, description="Its name in that pool.")
    offset_bytes: int = Field(ge=0, description="Where it begins in the pool's memory.")
    size_bytes: int = Field(ge=1, description="How long it is.")
    store_uuid: str = Field(
        alias="storeUUID",
        max_length=36,
        pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
        description="Of the store that is formatted in it; another one each time the range is given anew.",
    )
    coherence: Coherence = Field(description="As in the pool.")
    shares_per_node: int = Field(ge=1, le=MAX_SHARES, description="As in the pool.")
    runtime_injection: RuntimeInjection = Field(description="As in the pool.")
    reclaim_policy: ReclaimPolicy = Field(description="As in the pool.")
    access: RangeAccess = Field(description="As in the pool.")
    layout_version: int = Field(
        0, ge=0, description="The layout in which this changed last: what agents have to reach is not older."
    )
    state: RangeState = Field(
        description="Active; Retained: taken out of the list, data kept; Releasing: to be zeroed and given back; "
        "Quarantined: given up by force, and this object goes."
    )
    force: bool = Field(
        False, description="When it is given back it is not waited for its users: gismo.io/force-delete says so."
    )


class RangeStatus(Model):
    """What was observed of it."""

    observed_generation: int | None = Field(None, description="The generation of the spec that the status is about.")
    nodes_ready: str | None = Field(None, description='Nodes on which it is ready, such as "2/3".')
    conditions: list[Condition] = _CONDITIONS


# ---- GismoNode ----------------------------------------------------------------------------------------------------------


class Standing(str, Enum):
    """What the cluster thinks of a node."""

    ACTIVE = "Active"
    SUSPECT = "Suspect"
    FENCED = "Fenced"
    DEAD = "Dead"
    RELEASED = "Released"

    @property
    def in_cluster(self) -> Standing:
        """Without how far that has come in the stores."""
        return {Standing.FENCED: Standing.SUSPECT, Standing.RELEASED: Standing.DEAD}.get(self, self)

    @property
    def is_dead(self) -> bool:
        """By proof, or by somebody's word."""
        return self.in_cluster is Standing.DEAD


class NodeSpec(Model):
    """A node's part in one pool; written by the operator."""

    model_config = ConfigDict(
        json_schema_extra={"x-kubernetes-validations": [fixed("a GismoNode is of one pool and node", "pool", "node")]}
    )

    pool: str = Field(max_length=61, description="The pool.")
    node: str = Field(max_length=253, description="Name of the Node.")
    source: Source = Field(
        description="The pool's memory, as in the pool; its agent needs it also when the pool is gone."
    )
    host_id: int = Field(ge=0, lt=MAX_HOSTS, description="Its lane in every store of the pool.")
    incarnation: int = Field(1, ge=1, description="Grows when the host id is given to another node.")
    writer: bool = Field(False, description="Does it format the stores and write the pool label?")
    layout_version: int = Field(ge=0, description="What its agent has to reach.")
    standing: Standing = Field(
        Standing.ACTIVE,
        description="Active; Suspect: not Ready, no new shares; Fenced: and silent in the stores, where each call of its processes is "
        "refused; Dead: by proof, or somebody's word; Released: and what it held in the stores is used again.",
    )


class Failure(Model):
    """What does not work on a node."""

    namespace: str = Field(max_length=61, description="The Gismo namespace; empty: the pool itself.")
    reason: str = Field(max_length=64, pattern=r"^[A-Za-z]+$", description="In one word for programs.")
    message: str = Field(max_length=1024, description="For people.")


class Use(Model):
    """Who uses a Gismo namespace on a node."""

    namespace: str = Field(max_length=61, description="The Gismo namespace.")
    holders: list[Annotated[str, Field(max_length=320)]] = Field(
        default_factory=list, max_length=8, description="Pods (NAMESPACE/NAME) and processes, at most eight of them."
    )


class QuarantinedRange(Model):
    """A range that was given up by force, as the pool label has it."""

    namespace: str = Field(max_length=61, description="The Gismo namespace that it was of.")
    store_uuid: str = Field(alias="storeUUID", max_length=36, description="Of the store that is in it.")
    offset_bytes: int = Field(ge=0, description="Where it begins in the pool's memory.")
    size_bytes: int = Field(ge=1, description="How long it is.")
    holders: list[Annotated[str, Field(max_length=320)]] = Field(
        default_factory=list, max_length=8, description="Who uses it here: as in inUse."
    )


class SilentHost(Model):
    """A node that is not Active, in the stores of the Gismo namespaces."""

    node: str = Field(max_length=253, description="Name of the Node.")
    host_id: int = Field(ge=0, lt=MAX_HOSTS, description="Its lane in every store of the pool.")
    boot_id: str = Field(max_length=36, description="The boot of it that is meant.")
    standing: Standing = Field(description="As it was when this was found.")
    active: int = Field(
        ge=0,
        description="Stores in which it is not fenced: its heartbeat goes on, or was not looked at for long enough.",
    )
    fenced: int = Field(ge=0, description="Stores in which it is fenced: what it could still write is not used again.")
    released: int = Field(ge=0, description="Stores in which it holds nothing any more.")
    message: str = Field(max_length=1024, description="For people: what stands in the way.")


class NotLoaded(Model):
    """A container that has a share, and runs Ray without Gismo."""

    namespace: str = Field(max_length=61, description="The Gismo namespace.")
    holder: str = Field(max_length=320, description="The pod (NAMESPACE/NAME).")
    reason: str = Field(
        max_length=64, pattern=r"^[A-Za-z]+$", description="NotLoaded: without gismo_core; NotOpened: with it."
    )
    message: str = Field(max_length=1024, description="For people: why, and what to do.")


class NodeStatus(Model):
    """What the node's agent has reached and sees."""

    layout_version: int | None = Field(None, ge=0, description="The layout that was carved and proven.")
    boot_id: str | None = Field(None, max_length=36, description="Of the node's kernel.")
    nonce: str | None = Field(
        None,
        max_length=36,
        description="What the agent wrote into its line of the pool label; others look for it there.",
    )
    capacity_bytes: int | None = Field(None, ge=0, description="What the memory has for Gismo namespaces.")
    ready: int | None = Field(None, ge=0, description="Gismo namespaces that are ready here.")
    failing: int | None = Field(None, ge=0, description="Gismo namespaces that are not.")
    failures: list[Failure] = Field(default_factory=list, max_length=32, description="The first of what fails.")
    released: list[Annotated[str, Field(max_length=36)]] = Field(
        default_factory=list,
        max_length=2 * MAX_NAMESPACES,
        description="Store UUIDs of ranges that are Releasing or Quarantined and not mapped here any more; of the writer: and "
        "zeroed.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    strangers: list[Annotated[str, Field(max_length=253)]] = Field(
        default_factory=list,
        max_length=MAX_HOSTS,
        description="Said by the writer: nodes that do not see its memory, which is the pool's.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    in_use: list[Use] = Field(
        default_factory=list,
        max_length=MAX_NAMESPACES,
        description="Gismo namespaces that are in use here.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["namespace"]},
    )
    refused: list[Annotated[str, Field(max_length=36)]] = Field(
        default_factory=list,
        max_length=MAX_NAMESPACES,
        description="Of the writer: store UUIDs of ranges that the pool label never takes: they overlap, or come too late.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    quarantined: list[QuarantinedRange] = Field(
        default_factory=list,
        max_length=MAX_NAMESPACES,
        description="Ranges that were given up by force, and are nobody else's before the last user has ended.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["storeUUID"]},
    )
    silent: list[SilentHost] = Field(
        default_factory=list,
        max_length=MAX_HOSTS,
        description="Nodes that are not Active, and how far they are taken out of the stores; said by the node whose agent does it.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["hostId"]},
    )
    taken_host_id: int | None = Field(
        None,
        ge=0,
        lt=MAX_HOSTS,
        description="The pool label has this host id as another node's: nothing is done here before the operator gives another.",
    )
    not_loaded: list[NotLoaded] = Field(
        default_factory=list,
        max_length=32,
        description="Containers with a share here that run Ray without Gismo; nothing of the pool fails by that.",
    )
    conditions: list[Condition] = _CONDITIONS


# ---- the kinds ----------------------------------------------------------------------------------------------------------

POOL_RULES = [
    rule(
        "!self.metadata.name.contains('.')",
        "the name must be a DNS label without dots: it is the first half of a resource's name",
    ),
    rule("size(self.metadata.name) <= 60", "the name must have at most 60 characters"),
    rule(
        "!has(self.spec.namespaces) || "
        f"self.spec.namespaces.all(n, size(self.metadata.name) + size(n.name) <= {_NAMES_TOGETHER})",
        f"the names of the pool and of each namespace must have at most {_NAMES_TOGETHER} characters together",
    ),
]


NODE_RULES = [
    rule(
        "self.spec.hostId == oldSelf.spec.hostId || (has(oldSelf.status) && has(oldSelf.status.takenHostId) && "
        "oldSelf.status.takenHostId == oldSelf.spec.hostId)",
        "a node keeps its host id, unless its status says that it was another node's before it joined",
    )
]


class Metadata(BaseModel):
    """What is read of an object's metadata; the API server has more."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    name: str
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    deletion_timestamp: str | None = None
    annotations: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    finalizers: list[str] = Field(default_factory=list)


class GismoPool(Model):
    """One shared memory and how it is divided."""

    metadata: Metadata
    spec: PoolSpec
    status: PoolStatus = Field(default_factory=PoolStatus)


class GismoNamespace(Model):
    """A range of a pool for one tenant. Made by the operator: what you write is the GismoPool."""

    metadata: Metadata
    spec: RangeSpec
    status: RangeStatus = Field(default_factory=RangeStatus)


class GismoNode(Model):
    """A node's part in a pool: made by the operator, reported on by the node's agent."""

    metadata: Metadata
    spec: NodeSpec
    status: NodeStatus = Field(default_factory=NodeStatus)
