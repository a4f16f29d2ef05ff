"""One bound of tlsVersion is enough: the other is as far as Envoy goes, at both ends."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from tests.control.fleet import fleet
from tests.control.scene import Read, answer, until
from tests.control.test_quarantine_end_to_end import mesh

pytestmark = pytest.mark.envoy


def policy(version: str) -> str:
    return f"type: MeshTLS\nname: versions\nspec: {{rules: [{{default: {{tlsVersion: {version}}}}}]}}"


async def test_one_bound_is_enough(tmp_path: Path, read_resources: Read, envoy_binary: Path) -> None:
    async with fleet(tmp_path, read_resources, envoy_binary) as there, httpx.AsyncClient(timeout=10) as client:
        await there.running.apply(mesh(there, "http"))
        await there.application("backend")

        async def handshakes(version: str) -> int:
            path = f"http://127.0.0.1:{there.port('backend-admin')}/stats?filter=listener.*ssl.versions.{version}"
            return sum(map(int, re.findall(r": ([0-9]+)", (await client.get(path)).text)))

        for version, spoken in (("{min: TLS13}", "TLSv1.3"), ("{min: TLS12}", "TLSv1.3"), ("{max: TLS12}", "TLSv1.2")):
            await there.running.apply(policy(version))
            for name in ("web", "backend"):  # so that every connection is one of these versions
                there.start(name)
            await until(client, lambda status, _: status == 200, there.port("call"))
            for _ in range(20):
                assert (await answer(client, there.port("call")))[0] == 200
            assert await handshakes(spoken) > 0, version
            assert await handshakes("TLSv1.2" if spoken == "TLSv1.3" else "TLSv1.3") == 0, version
            for name in ("web", "backend"):
                there.kill(name)
            await asyncio.sleep(0.2)
