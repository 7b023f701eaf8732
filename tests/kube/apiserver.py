"""A real control plane on loopback: etcd and kube-apiserver as plain processes, ready within seconds, gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import binaries
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import ports

_TOKEN = "of-the-tests"
# What service accounts ask for, and what they get.
_AUDIT = """apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata, userGroups: [system:serviceaccounts]}, {level: None}]
"""
AUDIT_LOG = "audit.log"  # below the folder: a JSON object in each line
_READY_S = 120.0
_END_S = 10.0


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """One that runs."""

    url: str
    token: str  # of an administrator
    ca_file: Path
    folder: Path
    process: subprocess.Popen[bytes]  # of kube-apiserver

    @contextmanager
    def silent(self) -> Iterator[None]:
        """It is there and answers nothing, as behind a network that is cut."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def kubeconfig(self) -> Path:
        """A file for kubectl and kopf."""
        path = self.folder / "kubeconfig"
        path.write_text(
            f"""apiVersion: v1
kind: Config
clusters: [{{name: test, cluster: {{server: {self.url}, certificate-authority: {self.ca_file}}}}}]
users: [{{name: admin, user: {{token: {self.token}}}}}]
contexts: [{{name: test, context: {{cluster: test, user: admin}}}}]
current-context: test
"""
        )
        return path


@contextmanager
def running(folder: Path) -> Iterator[ControlPlane]:
    """Start it, with all its files below folder; stop it at the end."""
    etcd, apiserver = binaries.ensure("etcd"), binaries.ensure("kube-apiserver")
    folder.mkdir(parents=True, exist_ok=True)
    client, peer, port = ports.free(3)
    key = folder / "service-accounts.key"
    key.write_bytes(
        rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (folder / "audit.yaml").write_text(_AUDIT)
    (folder / "tokens.csv").write_text(f"{_TOKEN},admin,admin,system:masters\n")
    processes: list[subprocess.Popen[bytes]] = []

    def start(name: str, *command: str) -> subprocess.Popen[bytes]:
        with (folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=folder
            )
        processes.append(process)
        return process

    try:
        start(
            "etcd", str(etcd), f"--data-dir={folder / 'etcd'}", f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}", f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}", f"--initial-cluster=default=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync", "--log-level=warn",
        )  # fmt: skip
        server = start(
            "kube-apiserver", str(apiserver), f"--etcd-servers=http://127.0.0.1:{client}", "--bind-address=127.0.0.1",
            f"--secure-port={port}", f"--cert-dir={folder / 'certs'}", f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC", f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}", "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.0.0.0/24", "--allow-privileged=true",
            f"--audit-policy-file={folder / 'audit.yaml'}", f"--audit-log-path={folder / AUDIT_LOG}",
            "--disable-admission-plugins=ServiceAccount",  # no controller makes the accounts' tokens here
        )  # fmt: skip
        ca_file = folder / "certs" / "apiserver.crt"
        url = f"https://127.0.0.1:{port}"
        _await(server, url, ca_file, folder / "kube-apiserver.log")
        yield ControlPlane(url, _TOKEN, ca_file, folder, server)
    finally:
        for process in reversed(processes):
            _stop(process)
        shutil.rmtree(folder / "etcd", ignore_errors=True)


def _await(server: subprocess.Popen[bytes], url: str, ca_file: Path, log: Path) -> None:
    end = time.monotonic() + _READY_S
    while time.monotonic() < end:
        if server.poll() is not None:
            break
        try:
            context = ssl.create_default_context(cafile=str(ca_file))
            request = urllib.request.Request(f"{url}/readyz", headers={"Authorization": f"Bearer {_TOKEN}"})
            with urllib.request.urlopen(request, context=context, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            pass
        time.sleep(0.1)
    raise RuntimeError(f"kube-apiserver is not ready: {log.read_text()[-3000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
