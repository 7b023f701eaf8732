"""Our table of the kubelet's messages against the kubelet's own files."""

from __future__ import annotations

import re

import binaries
import pytest

from gismo_deviceplugin.kubelet import wire

pytestmark = pytest.mark.integration

_MESSAGE = re.compile(r"^message (\w+) \{(.*?)\}", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^\s*(?:optional )?((?:repeated )?[\w.]+|map<string, ?string>) (\w+) = (\d+);", re.MULTILINE)


def upstream(text: str) -> dict[str, dict[str, tuple[int, str]]]:
    """message → field → (number, type), of a .proto file without nested messages."""
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
    return {
        name: {
            field: (int(number), "map" if kind.startswith("map") else kind)
            for kind, field, number in _FIELD.findall(body)
        }
        for name, body in _MESSAGE.findall(code)
    }


@pytest.mark.parametrize(
    ("api", "ours", "path"),
    [
        (wire.plugin, wire.DEVICE_PLUGIN, "deviceplugin/v1beta1"),
        (wire.pods, wire.POD_RESOURCES, "podresources/v1"),
    ],
    ids=["device plugin", "pod resources"],
)
def test_names_numbers_and_types_are_the_kubelets(api: wire.Api, ours: wire.Messages, path: str) -> None:
    version = f"v0.{binaries.KUBERNETES.partition('.')[2]}"
    text = (binaries.module("k8s.io/kubelet", version) / "pkg" / "apis" / path / "api.proto").read_text()
    theirs = upstream(text)
    assert re.search(rf"^package {api.package};", text, re.MULTILINE)
    for message, fields in ours.items():
        assert message in theirs
        for field, said in fields.items():
            assert theirs[message].get(field) == said, f"{message}.{field}"
    # Services are called by name.
    for method in ("Register", "ListAndWatch", "Allocate", "PreStartContainer", "GetDevicePluginOptions"):
        assert path.startswith("pod") or f"rpc {method}(" in text
    for method in ("List", "GetAllocatableResources"):
        assert path.startswith("device") or f"rpc {method}(" in text
