"""The command line: in this process through typer's runner, and as real processes where exit codes and pipes matter."""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from typer.testing import CliRunner, Result

from envoy_ext.location import module_library
from offload import __version__
from offload.cli import app
from offload.cli.sign import certificate_verify
from offload.cli.status import bars, batch_sizes, quantile
from offload.identities.schemes import BY_NAME
from offload.reporting import exit_codes
from offload.v1 import admin_pb2
from tests.offload.conftest import ME
from tests.offload.daemon_process import DaemonProcess, command, environment
from tests.offload.key_files import Authority, key_id, shared_key, write_pair

COMMANDS = [
    "serve",
    "check-config",
    "keys list",
    "sign",
    "status",
    "reload",
    "drain",
    "log-level",
    "envoy-config",
    "bench",
]


def run(*arguments: str | Path, stdin: bytes | None = None, daemon: DaemonProcess | None = None) -> Result:
    sockets = {
        "OFFLOAD_SOCKET": str(daemon.socket) if daemon else None,
        "OFFLOAD_ADMIN_SOCKET": str(daemon.admin_socket) if daemon else None,
    }
    return CliRunner().invoke(app, [str(a) for a in arguments], input=stdin, env=sockets)


@dataclass(frozen=True)
class Ended:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def run_process(*arguments: str | Path) -> Ended:
    """For commands that make their process undumpable: not ours, please."""
    ran = subprocess.run(
        command(*arguments), env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    return Ended(ran.returncode, ran.stdout, ran.stderr)


def good(result: Result | Ended) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


# ---- help ----


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_teaches_with_an_example(name: str) -> None:
    text = good(run(*name.split(), "--help"))
    assert "Example" in text
    assert f"offload {name}" in " ".join(text.split())


def test_help_names_every_command_and_exit_code() -> None:
    text = good(run("--help"))
    assert all(name.split()[0] in text for name in COMMANDS)
    assert all(str(code) in text for code in (3, 69, 77, 78))


def test_version() -> None:
    assert good(run("--version")) == f"offload {__version__}\n"
    assert run("--no-such-option").exit_code == exit_codes.USAGE


def test_completion() -> None:
    """What the shell asks after `offload --install-completion`."""
    asked = {"_OFFLOAD_COMPLETE": "complete_bash", "COMP_WORDS": "offload ke", "COMP_CWORD": "1"}
    shown = subprocess.run(command(), env=environment(**asked), capture_output=True, text=True, timeout=60, check=False)
    assert shown.stdout.split() == ["keys"]


# ---- check-config ----


@pytest.fixture
def checked(tmp_path: Path, keys: Path, authority: Authority) -> DaemonProcess:
    key = shared_key("p256")
    write_pair(keys, "www", key, authority.issue(key))
    made = DaemonProcess(tmp_path)
    made.configure(identities={"www": ME})
    return made


def test_check_config_of_a_good_one(checked: DaemonProcess) -> None:
    text = good(run_process("check-config", "-c", checked.config_file))
    assert "configuration: valid" in text
    assert key_id(shared_key("p256")).hex() in text.replace("\n", "")
    shown = json.loads(good(run_process("check-config", "-c", checked.config_file, "-o", "json")))
    assert shown["identities"][0]["keys"][0]["signature_schemes"] == ["ecdsa_secp256r1_sha256"]
    assert shown["config"]["keys"]["debounce_ms"] == 10
    assert shown["problems"] == []


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


def test_serve_with_a_bad_configuration(checked: DaemonProcess) -> None:
    checked.config_file.write_text("foo: 1")
    served = subprocess.run(
        command("serve", "-c", checked.config_file), env=environment(), capture_output=True, timeout=60, check=False
    )
    assert served.returncode == exit_codes.CONFIGURATION
    assert b"foo: unknown field" in served.stderr


# ---- the commands that ask a daemon ----


def test_keys_list(running: DaemonProcess) -> None:
    text = good(run("keys", "list", daemon=running))
    assert "rsa2048" in text
    assert "www.example.com" in text
    shown = json.loads(good(run("keys", "list", "-o", "json", daemon=running)))
    assert [i["name"] for i in shown["identities"]] == ["rsa", "www"]
    assert shown["identities"][1]["keys"][0]["key_id"] == key_id(shared_key("p256")).hex()


@pytest.mark.parametrize("width", [80, 120])
def test_no_id_is_broken_up_and_no_table_is_cut(running: DaemonProcess, width: int) -> None:
    def shown(*arguments: str | Path) -> str:
        ran = subprocess.run(
            command(*arguments),
            env=environment(COLUMNS=str(width), OFFLOAD_ADMIN_SOCKET=str(running.admin_socket)),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return ran.stdout

    for arguments in (("keys", "list"), ("check-config", "-c", running.config_file)):
        text = shown(*arguments)
        for algorithm in ("p256", "rsa2048"):
            assert key_id(shared_key(algorithm)).hex() in text
        assert "used by  uid" in text
    for line in shown("status").splitlines():
        assert len(line) <= max(width, 100)
        assert "…" not in line, "a column that is cut tells nothing"


def test_status(running: DaemonProcess) -> None:
    text = good(run("status", daemon=running))
    assert "serving" in text
    assert all(a in text for a in ("rsa2048", "p256", "ed25519", "AVX-512 IFMA"))
    shown = json.loads(good(run("status", "-o", "json", daemon=running)))
    assert len(shown["classes"]) == 6
    assert all(isinstance(shown[field], int) for field in ("connections_total", "streams", "secret_memory_used_bytes"))
    assert all(isinstance(n, int) for n in shown["classes"][0]["queue_seconds"]["counts"])
    assert good(run("status", "--watch", "--count", "2", "--interval", "0.1", daemon=running)).count("p256") >= 1


def test_sign_by_identity_is_checked(running: DaemonProcess) -> None:
    result = run("sign", "-i", "www", "--handshake", "client", "-o", "json", stdin=b"transcript", daemon=running)
    shown = json.loads(good(result))
    assert shown["verified"] is True
    assert (shown["scheme"], shown["batch_size"]) == ("ecdsa_secp256r1_sha256", 1)
    signed = certificate_verify(b"transcript", "client", BY_NAME["ecdsa_secp256r1_sha256"])
    key = shared_key("p256")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    key.public_key().verify(base64.b64decode(shown["signature"]), signed, ec.ECDSA(hashes.SHA256()))


def test_sign_by_key_id_from_a_file(running: DaemonProcess, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"anything")
    key = shared_key("rsa2048")
    assert isinstance(key, rsa.RSAPrivateKey)
    identifier = key_id(key).hex()
    arguments = ("sign", "--key-id", identifier, "--scheme", "0x0401", "--input", tmp_path / "in", "--encoding", "hex")
    result = run(*arguments, daemon=running)
    signature = bytes.fromhex(good(result).strip())
    key.public_key().verify(signature, b"anything", padding.PKCS1v15(), hashes.SHA256())
    assert "rsa_pkcs1_sha256 (0x0401)" in result.stderr


def test_sign_raw_through_a_pipe(running: DaemonProcess) -> None:
    ran = subprocess.run(
        command(
            "sign", "-i", "rsa", "--scheme", "rsa_pss_rsae_sha256", "--encoding", "raw", "--socket", running.socket
        ),
        env=environment(),
        input=b"bytes",
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert len(ran.stdout) == 256


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-i", "www"], exit_codes.NO_PERMISSION, "this key's usage tls13 signs only TLS 1.3 CertificateVerify"),
        (["-i", "nobody"], exit_codes.NO_PERMISSION, "no such identity"),
        (["--key-id", "00" * 32, "--scheme", "0x0403"], exit_codes.NO_PERMISSION, "no such key"),
        (
            ["-i", "rsa", "--scheme", "ed25519"],
            exit_codes.FAILED,
            "no key of 'rsa' signs with ed25519; available: ",
        ),
        (
            ["-i", "rsa", "--scheme", "md5"],
            exit_codes.USAGE,
            "'md5' is not a known scheme; available: ecdsa_",
        ),
        (["--key-id", "00", "--scheme", "0x0403"], exit_codes.USAGE, "--key-id takes 64 hexadecimal digits"),
        (["--key-id", "00" * 32], exit_codes.USAGE, "--key-id needs --scheme"),
        ([], exit_codes.USAGE, "give either --identity or --key-id"),
        (["-i", "www", "--input", "/no/such/file"], exit_codes.USAGE, "/no/such/file cannot be read"),
    ],
)
def test_sign_that_cannot_be(running: DaemonProcess, arguments: list[str], code: int, message: str) -> None:
    result = run("sign", *arguments, stdin=b"data", daemon=running)
    assert result.exit_code == code, result.output
    assert message in result.stderr


def test_sign_too_much(running: DaemonProcess) -> None:
    result = run("sign", "-i", "rsa", stdin=bytes(512 * 1024 + 1), daemon=running)
    assert result.exit_code == exit_codes.USAGE
    assert "the daemon signs at most 524288 bytes; the input has 524289" in result.stderr


def test_reload_drain_and_log_level(daemon: DaemonProcess) -> None:
    daemon.start()
    assert good(run("log-level", "debug", daemon=daemon)) == "log level: info -> debug\n"
    assert run("log-level", "loud", daemon=daemon).exit_code == exit_codes.USAGE
    good(run("reload", daemon=daemon))
    (daemon.folder / "keys" / "www.key").write_text("x")
    result = run("reload", "-o", "json", daemon=daemon)
    assert result.exit_code == exit_codes.FAILED
    assert all(p["previous_kept"] for p in json.loads(result.stdout)["problems"])
    daemon.config_file.write_text("foo: 1")
    result = run("reload", daemon=daemon)
    assert result.exit_code == exit_codes.FAILED
    assert "foo: unknown field" in result.stderr
    assert "draining; it stops within 25 s" in good(run("drain", daemon=daemon))
    assert daemon.wait() == exit_codes.OK


@pytest.mark.parametrize("arguments", [["status"], ["keys", "list"], ["reload"], ["drain"], ["log-level", "info"]])
def test_no_daemon(tmp_path: Path, arguments: list[str]) -> None:
    result = run(*arguments, "--admin-socket", tmp_path / "none.sock")
    assert result.exit_code == exit_codes.UNAVAILABLE
    assert f"no daemon answers on {tmp_path}/none.sock: the socket does not exist" in result.stderr


def test_not_a_socket(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("status", "--admin-socket", tmp_path / "file")
    assert (result.exit_code, "it is not a socket" in result.stderr) == (exit_codes.UNAVAILABLE, True)


# ---- the commands that need none ----


def test_envoy_config_is_a_whole_file_that_names_the_module_by_its_path() -> None:
    whole = yaml.safe_load(good(run("envoy-config", "-i", "www", "-i", "rsa", "--listen", "127.0.0.1:8443")))
    assert set(whole["static_resources"]) == {"listeners", "clusters"}
    assert "'identities': ['www', 'rsa']" in str(whole)
    assert str(module_library()) in str(whole)
    tcp = json.loads(good(run("envoy-config", "-i", "www", "--tcp", "-o", "json")))
    assert "tcp_proxy" in str(tcp)
    assert set(yaml.safe_load(good(run("envoy-config", "-i", "www", "--snippet")))) == {"listeners", "clusters"}


def test_envoy_config_of_a_module_elsewhere() -> None:
    named = good(run("envoy-config", "-i", "www", "--library", "/opt/offload/libtls_offload.so"))
    assert "filename: /opt/offload/libtls_offload.so" in named
    searched = good(run("envoy-config", "-i", "www", "--by-name"))
    assert "filename" not in searched
    assert "name: tls_offload" in searched
    both = run("envoy-config", "-i", "www", "--by-name", "--library", "/x.so")
    assert (both.exit_code, "mutually exclusive" in both.stderr) == (exit_codes.USAGE, True)


def test_module_path_needs_no_identity() -> None:
    folder = Path(good(run("envoy-config", "--module-path")).strip())
    assert (folder / "libtls_offload.so").is_file()
    assert (folder / "libnghttp2.so.14").is_file()


def test_envoy_config_takes_host_names() -> None:
    whole = yaml.safe_load(good(run("envoy-config", "-i", "www", "--upstream", "localhost:8080")))
    [cluster] = whole["static_resources"]["clusters"]
    assert (cluster["type"], cluster["dns_lookup_family"]) == ("STRICT_DNS", "V4_PREFERRED")
    upstream = ("envoy-config", "-i", "cart", "--connect-to", "prices.example:8443", "--peer", "prices.example")
    whole = yaml.safe_load(good(run(*upstream)))
    [cluster], [listener] = whole["static_resources"]["clusters"], whole["static_resources"]["listeners"]
    value = cluster["transport_socket"]["typed_config"]["transport_socket_config"]["value"]
    assert value["server_name"] == "prices.example"
    address = listener["address"]["socket_address"]
    assert address["address"] == "127.0.0.1", "what is sent out by our identity is only this host's to send"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--upstream", "localhost", "must be a host and a port"),
        ("--upstream", "localhost:99999", "has port 99999"),
        ("--upstream", "300.1.2.3:80", "must be a host and a port"),
        ("--upstream", "a b:80", "must be a host and a port"),
        ("--connect-to", "prices", "must be a host and a port"),
        ("--listen", "localhost:8443", "--listen must be an IP address and a port"),
    ],
)
def test_envoy_config_of_an_address_that_is_none(option: str, value: str, message: str) -> None:
    result = run("envoy-config", "-i", "www", option, value)
    assert result.exit_code == exit_codes.USAGE
    assert f"{option} " in result.stderr
    assert message in result.stderr


def test_envoy_config_of_a_cluster() -> None:
    of_cluster = ("envoy-config", "-i", "cart", "--connect-to", "10.0.0.7:8443")
    prices = "spiffe://mesh.example/ns/shop/sa/prices"
    snippet = yaml.safe_load(good(run(*of_cluster, "--snippet", "--peer", prices, "--peer", "prices.example")))
    assert set(snippet) == {"clusters"}
    value = snippet["clusters"][0]["transport_socket"]["typed_config"]["transport_socket_config"]["value"]
    assert value["peer_spiffe_ids"] == [{"exact": prices}]
    assert value["peer_dns_names"] == ["prices.example"]
    result = run(*of_cluster)
    assert result.exit_code == exit_codes.USAGE
    assert "name the accepted servers" in result.stderr
    result = run("envoy-config", "-i", "cart", "--peer", prices)
    assert result.exit_code == exit_codes.USAGE
    assert "--peer requires --connect-to" in result.stderr


def test_envoy_config_that_knows_its_clients() -> None:
    cart = "spiffe://mesh.example/ns/shop/sa/cart"
    known = ("envoy-config", "-i", "prices", "--client-certificate", "required")
    listener = yaml.safe_load(good(run(*known, "--snippet", "--peer", cart)))["listeners"][0]
    chain = listener["filter_chains"][0]
    value = chain["transport_socket"]["typed_config"]["transport_socket_config"]["value"]
    assert value["client_certificate"] == "required"
    assert value["peer_spiffe_ids"] == [{"exact": cart}]
    route = chain["filters"][1]["typed_config"]["route_config"]["virtual_hosts"][0]["routes"][0]
    assert route["request_headers_to_remove"] == ["x-forwarded-client-cert"]
    assert route["request_headers_to_add"][0]["append_action"] == "OVERWRITE_IF_EXISTS_OR_ADD"
    result = run(*known, "--peer", "cart.example")
    assert result.exit_code == exit_codes.USAGE
    assert "is not a SPIFFE id" in result.stderr


@pytest.mark.envoy
def test_envoy_takes_the_config(tmp_path: Path, envoy_binary: Path) -> None:
    cluster = ["--connect-to", "10.0.0.7:8443", "--peer", "spiffe://mesh.example/prices"]
    sets: list[list[str]] = [
        [],
        ["--tcp"],
        ["--upstream", "localhost:8080"],
        ["--connect-to", "prices.example:8443", "--peer", "prices.example"],
        ["--http2-upstream", "--client-certificate", "optional"],
        ["--client-certificate", "required", "--peer", "spiffe://mesh.example/cart"],
        cluster,
        [*cluster, "--http2-upstream"],
        [*cluster, "--tcp"],
    ]
    for number, more in enumerate(sets):
        config = tmp_path / f"{number}.yaml"
        options = ["-i", "www", "--socket", str(tmp_path / "x.sock"), *more]
        config.write_text(good(run("envoy-config", *options)))
        checked = subprocess.run(
            [str(envoy_binary), "--mode", "validate", "-c", str(config)], capture_output=True, timeout=60, check=False
        )
        assert checked.returncode == 0, checked.stderr[-2000:]


def test_bench() -> None:
    shown = json.loads(good(run_process("bench", "-a", "p256", "-a", "ed25519", "--rounds", "1", "-o", "json")))
    assert set(shown["batch_us"]) == {"p256", "ed25519"}
    for times in shown["batch_us"].values():
        assert all(len(values) == 8 and min(values) > 0 for values in times.values())
        assert "software" in times
    assert set(shown["service"]["p256"]["sidecars"]) == {"1", "8", "32"}
    assert {verdict["choice"] for verdict in shown["verdict"].values()} <= {"offload", "even", "envoy"}
    assert shown["summary"]
    assert "pays from" in good(run_process("bench", "-a", "p256", "--rounds", "1"))


# ---- what the live view is made of ----


def test_quantiles() -> None:
    histogram = admin_pb2.Histogram(bounds=[1, 2, 4], counts=[0, 10, 10, 0], sum=0)
    assert quantile(histogram, 0.5) == 2
    assert quantile(histogram, 0.25) == 1.5
    assert quantile(histogram, 0.75) == 3
    assert quantile(admin_pb2.Histogram(bounds=[1], counts=[0, 5]), 0.5) == 1
    assert quantile(admin_pb2.Histogram(bounds=[1], counts=[0, 0]), 0.5) is None


def test_bars() -> None:
    assert bars([0, 1, 100, 50, 0, 0, 0, 100]) == " ▁█▄   █"
    assert bars([0] * 8) == ""
    one = admin_pb2.ClassStatistics(
        batches=[admin_pb2.BatchCount(size=8, count=2), admin_pb2.BatchCount(size=8, count=1, reason="full")]
    )
    assert batch_sizes(one) == [0] * 7 + [3]


def test_names_are_not_markup_and_move_no_cursor(tmp_path: Path, keys: Path, authority: Authority) -> None:
    key = shared_key("p256")
    write_pair(keys, "[red]www[", key, authority.issue(key, "evil\x1b[2J", dns=()))
    made = DaemonProcess(tmp_path)
    made.configure()
    ended = run_process("check-config", "-c", made.config_file)
    assert "[red]www[" in good(ended)
    assert "CN=evil?" in ended.stdout
    assert "\x1b" not in ended.output
