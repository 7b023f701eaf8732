"""The messages of the kubelet's gRPC APIs that are spoken here: device plugin v1beta1 and pod resources v1.

Names and numbers as in k8s.io/kubelet, pkg/apis/{deviceplugin/v1beta1,podresources/v1}/api.proto (v0.37); what is not used
is left out, which protobuf skips when it reads. A test compares them with those files. Descriptors are made here, at import,
so that neither a compiler nor generated code that fits one version of protobuf only is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"string": _Field.TYPE_STRING, "bool": _Field.TYPE_BOOL}

# message → field → (number, type); "repeated X" and "map" (string to string) as in the language.
Messages = Mapping[str, Mapping[str, tuple[int, str]]]

DEVICE_PLUGIN: Messages = {
    "Empty": {},
    "DevicePluginOptions": {
        "pre_start_required": (1, "bool"),
        "get_preferred_allocation_available": (2, "bool"),
    },
    "RegisterRequest": {
        "version": (1, "string"),
        "endpoint": (2, "string"),
        "resource_name": (3, "string"),
        "options": (4, "DevicePluginOptions"),
    },
    "Device": {"ID": (1, "string"), "health": (2, "string")},
    "ListAndWatchResponse": {"devices": (1, "repeated Device")},
    "ContainerAllocateRequest": {"devices_ids": (1, "repeated string")},
    "AllocateRequest": {"container_requests": (1, "repeated ContainerAllocateRequest")},
    "Mount": {"container_path": (1, "string"), "host_path": (2, "string"), "read_only": (3, "bool")},
    "DeviceSpec": {"container_path": (1, "string"), "host_path": (2, "string"), "permissions": (3, "string")},
    "ContainerAllocateResponse": {
        "envs": (1, "map"),
        "mounts": (2, "repeated Mount"),
        "devices": (3, "repeated DeviceSpec"),
    },
    "AllocateResponse": {"container_responses": (1, "repeated ContainerAllocateResponse")},
    "PreStartContainerRequest": {"devices_ids": (1, "repeated string")},
    "PreStartContainerResponse": {},
}

POD_RESOURCES: Messages = {
    "AllocatableResourcesRequest": {},
    "ContainerDevices": {"resource_name": (1, "string"), "device_ids": (2, "repeated string")},
    "AllocatableResourcesResponse": {"devices": (1, "repeated ContainerDevices")},
    "ListPodResourcesRequest": {},
    "ContainerResources": {"name": (1, "string"), "devices": (2, "repeated ContainerDevices")},
    "PodResources": {
        "name": (1, "string"),
        "namespace": (2, "string"),
        "containers": (3, "repeated ContainerResources"),
    },
    "ListPodResourcesResponse": {"pod_resources": (1, "repeated PodResources")},
}


def described(package: str, messages: Messages) -> descriptor_pb2.FileDescriptorProto:
    """The table as protobuf's own description of a file."""
    file = descriptor_pb2.FileDescriptorProto(name=f"gismo/{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            one = message.field.add(name=field, number=number, label=_Field.LABEL_OPTIONAL)
            if kind == "map":
                _add_map(message, one, f".{package}.{name}")
                continue
            if kind.startswith("repeated "):
                one.label = _Field.LABEL_REPEATED
                kind = kind.removeprefix("repeated ")
            if kind in _SCALARS:
                one.type = _SCALARS[kind]
            else:
                one.type, one.type_name = _Field.TYPE_MESSAGE, f".{package}.{kind}"
    return file


def _add_map(message: descriptor_pb2.DescriptorProto, field: descriptor_pb2.FieldDescriptorProto, scope: str) -> None:
    """A map is a repeated entry of key and value."""
    entry_name = f"{field.name.capitalize()}Entry"
    entry = message.nested_type.add(name=entry_name)
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    field.label, field.type, field.type_name = _Field.LABEL_REPEATED, _Field.TYPE_MESSAGE, f"{scope}.{entry_name}"


class Api:
    """The message classes of one package, as attributes: Api("v1beta1", DEVICE_PLUGIN).Device(ID="0")."""

    def __init__(self, package: str, messages: Messages) -> None:
        # A pool of its own: the names are the kubelet's, and another library may have registered them too.
        pool = descriptor_pool.DescriptorPool()
        pool.Add(described(package, messages))
        self.package = package
        self._classes = {
            name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in messages
        }

    def __getattr__(self, name: str) -> Any:
        try:
            return self._classes[name]
        except KeyError:
            raise AttributeError(name) from None


plugin = Api("v1beta1", DEVICE_PLUGIN)
pods = Api("v1", POD_RESOURCES)

HEALTHY, UNHEALTHY = "Healthy", "Unhealthy"
VERSION = "v1beta1"
