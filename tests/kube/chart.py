"""What the chart installs, as `helm template` says it."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import binaries
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "charts" / "gismo"
RELEASE = "gismo"
NAMESPACE = "gismo-system"


class Refused(RuntimeError):
    """Helm does not take these values; the message is Helm's."""


@functools.cache
def rendered(*values: str) -> tuple[dict[str, Any], ...]:
    """All objects, hooks among them, with these values (`name=value`, as after --set)."""
    command = [str(binaries.ensure("helm")), "template", RELEASE, str(FOLDER), "--namespace", NAMESPACE]
    command += ["--kube-version", binaries.KUBERNETES]
    for value in values:
        command += ["--set", value]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr)
    return tuple(one for one in yaml.safe_load_all(done.stdout) if one)


def of_kind(*kinds: str, objects: Iterable[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """Those of these kinds, in the chart's order."""
    return [one for one in (rendered() if objects is None else objects) if one["kind"] in kinds]


def policies() -> list[dict[str, Any]]:
    """The admission policies and their bindings."""
    return of_kind("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
