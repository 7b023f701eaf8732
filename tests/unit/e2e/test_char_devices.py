"""What the e2e test of character devices serves, against the kubelet's end of the API: that it runs, and what it answers."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

import grpc
import pytest
from fake_kubelet import Kubelet

SERVER = Path(__file__).resolve().parents[2] / "e2e" / "char_devices.py"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="device nodes are made by root")
def test_it_offers_two_devices_and_answers_as_the_agent_does(tmp_path: Path) -> None:
    async def story(folder: Path) -> None:
        kubelet = Kubelet(folder)
        await kubelet.start()
        arguments = [f"--device-plugins={folder}", f"--pod-resources={kubelet.pod_resources}", "--allow=team-a"]
        arguments += [f"--state={tmp_path / 'state'}", f"--devices={tmp_path / 'dev'}"]
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVER.read_text(), *arguments, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert server.stdout is not None
            offered = json.loads(await asyncio.wait_for(server.stdout.readline(), 60))
            if len(offered) < 2:
                pytest.skip(f"this machine has not two harmless character devices: {offered}")
            for _ in range(600):
                if all(kubelet.endpoints.get(one["resource"]) for one in offered.values()) and all(
                    one.devices for one in kubelet.endpoints.values()
                ):
                    break
                await asyncio.sleep(0.05)
            numbers = set()
            for one in offered.values():
                pod = await kubelet.run_pod("team-a", "pod", one["resource"])
                (device,) = pod.answer.devices
                assert device.container_path == f"/dev/gismo/{one['store']}"
                assert device.permissions == "rw"
                found = os.stat(device.host_path).st_rdev
                assert (os.major(found), os.minor(found)) == (one["major"], one["minor"])
                numbers.add(found)
            assert len(numbers) == 2
            with pytest.raises(grpc.aio.AioRpcError, match="add team-b to access"):
                await kubelet.run_pod("team-b", "stranger", offered["one"]["resource"])
        finally:
            server.kill()
            await server.wait()
            await kubelet.stop()

    with tempfile.TemporaryDirectory(prefix="kubelet-") as folder:
        asyncio.run(story(Path(folder)))
