"""`offload check-config`, and `serve` with a bad configuration."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from offload.reporting import exit_codes
from tests.offload.cli.invoke import good, run, run_process
from tests.offload.conftest import ME
from tests.offload.daemon_process import DaemonProcess, command, environment
from tests.offload.key_files import Authority, key_id, shared_key, write_pair


@pytest.fixture
def checked(tmp_path: Path, keys: Path, authority: Authority) -> DaemonProcess:
    key = shared_key("p256")
    write_pair(keys, "www", key, authority.issue(key))
    made = DaemonProcess(tmp_path)
    made.configure(identities={"www": ME})
    return made


@pytest.mark.slow(seconds=3)
def test_check_config_of_a_good_one(checked: DaemonProcess) -> None:
    text = good(run_process("check-config", "-c", checked.config_file))
    assert "configuration: valid" in text
    assert key_id(shared_key("p256")).hex() in text.replace("\n", "")
    shown = json.loads(good(run_process("check-config", "-c", checked.config_file, "-o", "json")))
    assert shown["identities"][0]["keys"][0]["signature_schemes"] == ["ecdsa_secp256r1_sha256"]
    assert shown["config"]["keys"]["debounce_ms"] == 10
    assert shown["problems"] == []


@pytest.mark.slow(seconds=3)
def test_check_config_of_a_bad_file(checked: DaemonProcess, keys: Path) -> None:
    (keys / "www.key").write_text("garbage")
    result = run_process("check-config", "-c", checked.config_file, "-o", "json")
    assert result.exit_code == exit_codes.FAILED
    assert {Path(p["path"]).name for p in json.loads(result.stdout)["problems"]} == {"www.key", "www.crt", "www"}
    assert "holds neither" in run_process("check-config", "-c", checked.config_file).stdout


def test_check_config_of_a_bad_configuration(checked: DaemonProcess) -> None:
    checked.config_file.write_text("metrics:\n  adress: x\nkeys: {directory: relative}\n")
    result = run_process("check-config", "-c", checked.config_file)
    assert result.exit_code == exit_codes.CONFIGURATION
    assert f"{checked.config_file}:2: metrics.adress: unknown field (did you mean 'address'?)" in result.stderr
    assert f"{checked.config_file}:3: keys.directory: must be an absolute path" in result.stderr


def test_check_config_prints_the_reference() -> None:
    assert "| `data_plane.shards` |" in good(run("check-config", "--reference"))


@pytest.mark.slow(seconds=2)
def test_serve_with_a_bad_configuration(checked: DaemonProcess) -> None:
    checked.config_file.write_text("foo: 1")
    served = subprocess.run(
        command("serve", "-c", checked.config_file), env=environment(), capture_output=True, timeout=60, check=False
    )
    assert served.returncode == exit_codes.CONFIGURATION
    assert b"foo: unknown field" in served.stderr
