"""Operators of access logs: those that are accepted are those that Envoy takes, in every form of the table."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from control.policies.meshaccesslog.operators import ARGUMENTS, PLACEHOLDERS, PLAIN, SHORTENED, problem

_ARGUMENT = {"PATH": "WQ:ORIG", "COMMON_DURATION": "DS_RX_BEG:US_TX_BEG:ms", "FILTER_STATE": "a:PLAIN"}


def forms() -> list[str]:
    found = [f"%{name}%" for name in sorted(PLAIN)]
    found += [f"%{name}({_ARGUMENT.get(name, 'x')})%" for name in sorted(ARGUMENTS)]
    found += [f"%{name}({_ARGUMENT.get(name, 'x')}):5%" for name in sorted(SHORTENED & ARGUMENTS.keys())]
    return [*found, "%QUERY_PARAMS:5%", "%REQ(X?Y):7%", "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%", "100%% of %PROTOCOL%"]


def listener(number: int, text: str) -> dict[str, object]:
    types = "type.googleapis.com/envoy."
    log = {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": types + "extensions.access_loggers.file.v3.FileAccessLog",
            "path": "/dev/null",
            "log_format": {"text_format_source": {"inline_string": text + "\n"}},
        },
    }
    proxy = {
        "@type": types + "extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "a",
        "cluster": "c",
        "access_log": [log],
    }
    return {
        "@type": types + "config.listener.v3.Listener",
        "name": f"L{number}",
        "bind_to_port": False,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 10_000 + number}},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}],
    }


BAD = [
    "%NO_SUCH%",
    "%REQ%",
    "%PROTOCOL(x)%",
    "%DURATION:5%",
    "100% sure",
    "%REQ(a:b)%",
    "%START_TIME",
    "%FILTER_STATE(a:NO)%",
]


@pytest.mark.envoy
def test_envoy_takes_what_is_accepted_and_refuses_the_rest(envoy_binary: Path, tmp_path: Path) -> None:
    texts = [*forms(), *BAD]
    listeners = [listener(number, text) for number, text in enumerate(texts)]
    lds, bootstrap, log = tmp_path / "lds.json", tmp_path / "bootstrap.json", tmp_path / "envoy.log"
    lds.write_text(json.dumps({"resources": listeners}))
    cluster = {"name": "c", "type": "STATIC", "load_assignment": {"cluster_name": "c"}}
    dynamic = {"lds_config": {"path_config_source": {"path": str(lds)}}}
    data = {
        "node": {"id": "a", "cluster": "b"},
        "dynamic_resources": dynamic,
        "static_resources": {"clusters": [cluster]},
    }
    bootstrap.write_text(json.dumps(data))
    command = [
        str(envoy_binary),
        "-c",
        str(bootstrap),
        "--log-level",
        "warning",
        "--use-dynamic-base-id",
        "--concurrency",
        "1",
    ]
    with log.open("w") as output:
        envoy = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        for _ in range(300):  # one update, whose refusal names every listener that is wrong
            if "Error adding/updating listener(s)" in log.read_text():
                break
            time.sleep(0.1)
        time.sleep(1)
    finally:
        envoy.terminate()
        envoy.wait(30)
    refused = {texts[int(number)] for number in re.findall(r"\bL(\d+): ", log.read_text())}
    assert refused == set(BAD)


@pytest.mark.parametrize("text", forms())
def test_accepted(text: str) -> None:
    assert problem(text) is None


@pytest.mark.parametrize("text", BAD)
def test_refused(text: str) -> None:
    assert problem(text) is not None


def test_placeholders_are_accepted_and_filled() -> None:
    from control.policies.meshaccesslog.generate import Traffic

    text = " ".join(f"%{name}%" for name in sorted(PLACEHOLDERS))
    assert problem(text) is None
    filled = Traffic("default", "east", "web", "backend", "OUTBOUND", "10.0.0.1", "w").fill(text)
    assert "KUMA" not in filled
    assert problem(filled) is None
