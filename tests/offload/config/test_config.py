"""Every way a configuration can be wrong has an error that names the place and the way out."""

from __future__ import annotations

import getpass
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from offload.config.fields import parse_address
from offload.config.file import ConfigError, load_config, parse_yaml
from offload.config.identities import Identity, Selector
from offload.config.settings import Config
from offload.config.settings_table import settings_table
from tests.offload.daemon_process import DaemonProcess

ROOT = Path(__file__).resolve().parents[3]


def load(tmp_path: Path, text: str, **environment: str) -> Config:
    path = tmp_path / "offload.yaml"
    path.write_text(text)
    return load_config(path, environment)


def refused(tmp_path: Path, text: str, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **environment)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_defaults_need_no_file() -> None:
    config = load_config(None, {})
    assert config.sockets.main is not None
    assert config.sockets.main.path == Path("/run/offload/offload.sock")
    assert config.metrics.host_and_port() == ("127.0.0.1", 9464)
    assert config.security.allow_unlocked_memory is False
    assert config.identities == {}


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == load(tmp_path, "# nothing\n") == Config()


def test_a_whole_configuration(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        f"""
        sockets:
          main: {{path: /run/a.sock, owner: {getpass.getuser()}, group: {os.getgid()}, mode: "0666"}}
          dedicated: [{{name: cart, path: /run/cart.sock}}]
        identities:
          "spiffe://mesh.example/ns/shop/sa/cart":
            source: {{files: cart}}
            usage: tls12+13
            decrypt: true
            selectors: [{{uid: 5, socket: cart}}, {{cgroup: /kubepods, executable: /usr/bin/envoy}}]
            trust_bundles: [{{file: /etc/ca.pem, trust_domain: mesh.example}}]
        admin: null
        metrics: {{address: null}}
        """,
    )
    assert config.sockets.main is not None
    assert config.sockets.main.mode == 0o666
    assert config.sockets.main.owner_uid() == os.getuid()
    assert config.sockets.dedicated[0].mode == 0o600
    identity = config.identities["spiffe://mesh.example/ns/shop/sa/cart"]
    assert [s.rule() for s in identity.selectors] == [
        {"uid": 5, "socket": "cart"},
        {"executable": "/usr/bin/envoy", "cgroup": "/kubepods"},
    ]
    assert config.admin is None
    assert config.metrics.host_and_port() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo: 1", "offload.yaml:1: foo: unknown field; allowed: admin, audit, data_plane, identities"),
        ("metrics:\n  adress: x", "offload.yaml:2: metrics.adress: unknown field (did you mean 'address'?)"),
        ("- 1", "offload.yaml:1: must be a mapping of sections, not a list"),
        ("a: b: c", "offload.yaml:1: is not YAML: mapping values are not allowed here"),
        ("logging: {level: info\n", "offload.yaml:2: is not YAML"),
        ("keys: {}\nkeys: {}", "offload.yaml:2: keys: is given twice"),
        ("? [a]\n: 1", "offload.yaml:1: a field's name must be a word"),
        ("keys: &k\n  directory: *k", "offload.yaml:1: keys.directory.directory"),
        ("sockets: {main: {path: run/x}}", "sockets.main.path: must be an absolute path, not 'run/x'"),
        (f"sockets: {{main: {{path: /{'x' * 107}}}}}", "a socket's path has at most 107 bytes, this one has 108"),
        ("sockets: {main: {mode: 0660}}", 'sockets.main.mode: must be an octal mode in quotes, for example "0660"'),
        ('sockets: {main: {mode: "9"}}', "sockets.main.mode: must be an octal mode in quotes"),
        ("sockets: {main: {owner: no-such-user}}", "there is no user 'no-such-user' on this host; create it, or give"),
        ("sockets: {main: {group: no-such-group}}", "there is no group 'no-such-group' on this host"),
        ("sockets: {main: {owner: -1}}", "sockets.main.owner: -1 is not a valid user number"),
        ("sockets: {main: {owner: true}}", "must be the name or number of a user, not True"),
        ("sockets: {main: null}", "no socket: nobody could reach the daemon"),
        ("sockets:\n  dedicated:\n    - path: /a", "offload.yaml:3: sockets.dedicated[0].name: is required"),
        ("sockets: {dedicated: [{name: Cart, path: /a}]}", "sockets.dedicated[0].name: must match"),
        ("sockets: {dedicated: [{name: main, path: /a}]}", "every socket needs its own name; used twice: main"),
        (
            "sockets: {dedicated: [{name: a, path: /a}, {name: b, path: /a}]}",
            "every socket needs its own path; used twice: /a",
        ),
        ("sockets: {dedicated: {name: a}}", "sockets.dedicated: should be a valid tuple, not a mapping"),
        ("keys: {directory: keys}", "keys.directory: must be an absolute path"),
        ("keys: {debounce_ms: 0}", "keys.debounce_ms: should be greater than or equal to 10, not 0"),
        ("keys: {watch: perhaps}", "keys.watch: should be a valid boolean"),
        ("keys: {trust_bundles: [{}]}", "keys.trust_bundles[0].file: is required"),
        ("identities: {www: {usage: tls14}}", "www.usage: must be 'tls13', 'tls12+13' or 'any', not 'tls14'"),
        ("identities: {www: {decrypt: true}}", "'decrypt' is TLS 1.2 RSA key exchange: it needs usage"),
        ("identities: {www: {selectors: [{}]}}", "a selector needs at least one field, or it would match every caller"),
        ("identities: {www: {selectors: [{uid: null}]}}", "a selector needs at least one field"),
        ("identities: {www: {selectors: [{uid: x}]}}", "identities.www.selectors[0].uid: should be a valid integer"),
        ("identities: {www: {selectors: [{uid: -1}]}}", "identities.www.selectors[0].uid: should be greater than"),
        ("identities: {www: {selectors: [{uid: 1, user: root}]}}", "give 'uid' or 'user', not both"),
        ("identities: {www: {selectors: [{gid: 1, group: root}]}}", "give 'gid' or 'group', not both"),
        ("identities: {www: {selectors: [{cgroup: kubepods}]}}", "cgroup must begin with '/'"),
        ("identities: {www: {selectors: [{executable: /bin/envoy}]}}", "'executable' alone is no proof: any user"),
        (
            "identities: {www: {selectors: [{executable: /bin/envoy, socket: main}]}}",
            "'executable' with the main socket is no proof: any user who may",
        ),
        ("identities: {www: {selectors: [{cgroup: /, socket: main}]}}", "or a dedicated socket"),
        ("identities: {www: {selectors: [{cgroup: /}]}}", "every process of the host is in cgroup '/': name one below"),
        ("identities: {www: {selectors: [{cgroup: //, executable: /bin/envoy}]}}", "is in cgroup '//'"),
        ("identities: {www: {selectors: [{executable: envoy}]}}", "must be an absolute path, not 'envoy'"),
        ("identities: {www: {selectors: [{socket: cart}]}}", "'cart', which is not in 'sockets'; defined: main"),
        ("identities: {www: {source: {files: ../www}}}", "identities.www.source.files: must match"),
        ("identities: {a: {source: {files: b}}, b: {}}", "identities 'a' and 'b' both use the files of 'b'"),
        ('identities: {"": {}}', "an identity's name is empty"),
        (f"identities:\n  ? {'x' * 2049}\n  : {{}}", "is longer than 2048 characters"),
        ("identities: {a.b/c: {usage: 1}}", "identities['a.b/c'].usage: must be"),
        ("data_plane: {backend: gpu}", "data_plane.backend: must be 'auto', 'software' or 'ifma8', not 'gpu'"),
        ("data_plane: {shards: 0}", "data_plane.shards: must be \"auto\" or from 1 to 256, not 0"),
        ("data_plane: {shards: many}", "data_plane.shards: must be \"auto\" or from 1 to 256, not 'many'"),
        ("data_plane: {queue_limit: 10}", "'connection_queue_limit' is above 'queue_limit'"),
        ("data_plane: {max_wait_us: -1}", "data_plane.max_wait_us: should be greater than or equal to 0, not -1"),
        ('admin: {mode: "0666"}', "mode 0666 lets every user drain the daemon"),
        ("admin: {path: /run/offload/offload.sock}", "the admin socket has the path of another socket"),
        ("metrics: {address: localhost}", "metrics.address: must be an IP address and a port, '127.0.0.1:9464'"),
        ('metrics: {address: "1.2.3.4:99999"}', "metrics.address: must be an IP address and a port"),
        ('metrics: {address: "::1:80"}', "metrics.address: must be an IP address and a port"),
        ("logging: {level: trace}", "logging.level: must be 'debug', 'info', 'warning' or 'error', not 'trace'"),
        ("logging: {format: xml}", "logging.format: must be 'auto', 'json' or 'console', not 'xml'"),
        ("shutdown: {drain_timeout_seconds: soon}", "shutdown.drain_timeout_seconds: should be a valid number"),
        ("security: {allow_unlocked_memory: 7}", "security.allow_unlocked_memory: should be a valid boolean"),
        ("logging: 3", "logging: should be a valid dictionary"),
    ],
)  # fmt: skip
def test_errors(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path, text)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    lines = refused(tmp_path, "foo: 1\nlogging:\n  level: x\nkeys:\n  directory: y\n").splitlines()
    assert [line.split(": ")[0] for line in lines] == ["offload.yaml:1", "offload.yaml:3", "offload.yaml:5"]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "none.yaml", {})
    (tmp_path / "latin1.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load_config(tmp_path / "latin1.yaml", {})


STRANGER = 12345


def open_to_a_group(file: Path) -> None:
    os.chown(file, -1, STRANGER)
    file.chmod(0o664)


@pytest.mark.root
@pytest.mark.parametrize(
    ("bend", "says"),
    [
        (lambda file: os.chown(file, STRANGER, -1), r"offload\.yaml belongs to uid 12345, .* or to the daemon's user"),
        (lambda file: os.chown(file.parent, STRANGER, -1), "belongs to uid 12345"),
        (lambda file: file.chmod(0o666), r"every user can write .*: chmod o-w"),
        (lambda file: file.parent.chmod(0o777), "every user can write in"),
        (open_to_a_group, "the group with gid 12345 can write"),
    ],
    ids=["another's file", "another's folder", "open file", "open folder", "open to a group"],
)
def test_a_file_that_others_could_write_is_refused(tmp_path: Path, bend: Callable[[Path], object], says: str) -> None:
    """Whoever writes it says which keys are served, and to whom."""
    file = tmp_path / "node" / "offload.yaml"
    file.parent.mkdir()
    file.write_text("data_plane: {shards: 2}")
    assert load_config(file, {}).data_plane.shards == 2
    bend(file)
    with pytest.raises(ConfigError, match="is rejected: .*" + says) as refusal:
        load_config(file, {})
    assert "trusted_users" not in str(refusal.value), "the file cannot speak for itself"


def test_a_configuration_from_a_descriptor() -> None:
    """`offload check-config -c <(make-one)`."""
    read, write = os.pipe()
    os.write(write, b"data_plane: {shards: 2}")
    os.close(write)
    try:
        assert load_config(Path(f"/dev/fd/{read}"), {}).data_plane.shards == 2
    finally:
        os.close(read)


@pytest.mark.slow(seconds=8)
def test_a_reload_refuses_a_file_that_others_could_write(daemon: DaemonProcess) -> None:
    daemon.start()
    daemon.config_file.chmod(0o666)
    daemon.signal(signal.SIGHUP)
    refused = daemon.wait_log("the new configuration is rejected; the running one stays in force")
    assert "chmod o-w" in refused["reason"]


def test_the_environment_goes_over_the_file(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "data_plane: {shards: 2}\nmetrics: {address: '127.0.0.1:1'}",
        OFFLOAD_DATA_PLANE__SHARDS="7",
        OFFLOAD_METRICS__ADDRESS="null",
        OFFLOAD_SOCKETS__MAIN__PATH="/run/other.sock",
        OFFLOAD_SOCKETS__MAIN__MODE="0600",
        OFFLOAD_IDENTITIES__WWW__SELECTORS="[{uid: 3}]",
        OFFLOAD_SERVICE_HOST="10.0.0.1",
        OFFLOAD_CONFIG="/ignored",
    )
    assert config.data_plane.shard_count() == 7
    assert config.metrics.address is None
    assert config.sockets.main is not None
    assert (config.sockets.main.path, config.sockets.main.mode) == (Path("/run/other.sock"), 0o600)
    assert config.identities["www"].selectors == (Selector(uid=3),)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("OFFLOAD_LOGGING__LEVEL", "x", "environment variable OFFLOAD_LOGGING__LEVEL: logging.level: must be 'debug'"),
        ("OFFLOAD_LOGGING__LEVLE", "info", "logging.levle: unknown field (did you mean 'level'?)"),
        ("OFFLOAD_NOTHING__HERE", "1", "environment variable OFFLOAD_NOTHING__HERE: nothing: unknown field"),
        ("OFFLOAD_ADMIN__MODE", "0666", "environment variable OFFLOAD_ADMIN__MODE: admin: mode 0666 lets every user"),
        ("OFFLOAD_KEYS__WATCH", "{", "environment variable OFFLOAD_KEYS__WATCH: its value is not YAML"),
    ],
)
def test_errors_in_the_environment(tmp_path: Path, variable: str, value: str, message: str) -> None:
    assert message in refused(tmp_path, "logging: {format: json}", **{variable: value})


def test_names_become_numbers_and_words() -> None:
    assert Selector(socket="main").rule() == {"socket": "main"}  # openly everybody who may open it
    assert Selector(executable=Path("/bin/envoy"), socket="cart").is_proof
    selector = Selector(user="root", group="root", socket="main")
    assert selector.rule() == {"uid": 0, "gid": 0, "socket": "main"}
    assert selector.words() == "user root (uid 0), group root (gid 0), socket main"


def test_nobody_may_use_an_identity_by_default() -> None:
    identity = Identity()
    assert identity.selectors == ()
    assert identity.usage == "tls13"
    assert identity.decrypt is False


def test_addresses() -> None:
    assert parse_address("[::1]:80") == ("::1", 80)
    assert parse_address("10.0.0.1:0") == ("10.0.0.1", 0)


def test_lines_survive_anchors_and_merges() -> None:
    values, lines = parse_yaml("a: &a {x: 1}\nb:\n  <<: *a\n  y: 2\n", "f")
    assert values == {"a": {"x": 1}, "b": {"x": 1, "y": 2}}
    assert lines[("b", "y")] == 4


def test_every_setting_has_a_reason() -> None:
    rows = [
        row for row in settings_table().splitlines()[2:] if row.split("|")[3].strip() not in ("required", "as below")
    ]
    without = [row for row in rows if not row.split("|")[4].strip()]
    assert rows
    assert without == []


def test_the_example_configuration_is_valid_and_says_the_defaults() -> None:
    example = load_config(ROOT / "deploy" / "offload.yaml", {})
    defaults = Config()
    for section in ("keys", "data_plane", "metrics", "logging", "shutdown", "security", "admin"):
        assert getattr(example, section) == getattr(defaults, section), section
