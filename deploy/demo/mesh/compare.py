"""`EnvoyTLS` against `Offload`, in the same mesh, with a full handshake for every request; and where the keys then are.

The mode of the whole mesh is switched between slices, so that other load on the machine affects both alike.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from rich.console import RenderableType
from rich.table import Table

from deploy.demo.mesh import calls
from deploy.demo.mesh.parts import CART, WEB, Mesh
from deploy.demo.mesh.result import Step
from deploy.demo.mesh.steps import FROM_CART, SETTLED
from deploy.load.usage import process_cpu_ns
from deploy.node import memory_search
from deploy.node.waiting import wait_for
from offload.v1 import private_key_pb2

MODES: Mapping[str, str] = {"EnvoyTLS": "envoy-tls", "Offload": "offload"}  # mode: file of resources/
KEY_TYPES = ("rsa2048", "p256")
AT_ONCE = 16  # enough for batches to form; with fewer, operations mostly arrive alone
SWITCH_SECONDS = 60
WORKLOADS = 3  # each with one identity, and so one key at the daemon


@dataclass(frozen=True)
class Plan:
    rounds: int = 3
    seconds: float = 1.5  # per slice


@dataclass
class Measured:
    """All slices of one mode and key type."""

    connections: int = 0
    failures: int = 0
    seconds: float = 0
    envoy_ns: int = 0
    daemon_ns: int = 0
    full_handshakes: int = 0
    resumed: int = 0
    signatures: int = 0  # by the daemon

    @property
    def per_second(self) -> float:
        return self.connections / self.seconds if self.seconds else 0.0

    def as_data(self) -> dict[str, Any]:
        each = max(self.connections, 1)
        return {
            "requests": self.connections,
            "failures": self.failures,
            "handshakes_per_s": round(self.per_second, 1),
            "envoys_cpu_us_per_connection": round(self.envoy_ns / 1e3 / each, 1),
            "daemon_cpu_us_per_connection": round(self.daemon_ns / 1e3 / each, 1),
            "cpu_us_per_connection": round((self.envoy_ns + self.daemon_ns) / 1e3 / each, 1),
            "signatures_by_the_daemon": self.signatures,
        }


@dataclass(frozen=True)
class Counts:
    """The counters at one moment."""

    envoy_ns: int
    daemon_ns: int
    by_envoy: int  # handshakes by Envoy's own TLS, and by the module
    by_module: int
    resumed: int
    signatures: int


def switch(mesh: Mesh, mode: str, key_type: str) -> None:
    """Sets the mode and key type of the whole mesh; returns once every proxy has them, also for web's calls to cart."""
    mesh.apply("full-handshakes", MODES[mode], keyType=key_type)
    if mode == "Offload":
        wait_for("the daemon's new keys", lambda: _daemon_keys(mesh) == [key_type] * WORKLOADS, SWITCH_SECONDS)
    else:
        wait_for("the Envoys' new keys", lambda: _envoy_keys(mesh) == {key_type}, SWITCH_SECONDS)

    def made_so() -> bool:
        """Checks with one connection which end signed where, and with which key."""
        before, daemon_before = _counts(mesh), mesh.daemon.counters()
        answer = calls.answer(mesh.web_to_cart)
        after, signed = _counts(mesh), mesh.daemon.counters().since(daemon_before)
        by_envoy, by_module = after.by_envoy - before.by_envoy, after.by_module - before.by_module
        wanted = (1, 0, 0, 0) if mode == "EnvoyTLS" else (0, 1, 2, 2)
        return answer == FROM_CART and (by_envoy, by_module, signed.answered(), signed.answered(key_type)) == wanted

    wait_for(f"mode {mode} with {key_type}", made_so, SWITCH_SECONDS)
    mesh.answers_become(mesh.web_to_cart, FROM_CART, SETTLED)
    wait_for(f"mode {mode} with {key_type}, still", made_so, SWITCH_SECONDS)


def end(mesh: Mesh) -> None:
    """Restores the mesh: keys in the daemon, sessions are resumed."""
    switch(mesh, "Offload", "p256")
    for resource in mesh.example.resources("full-handshakes"):
        mesh.control_plane.delete(resource)


def _daemon_keys(mesh: Mesh) -> list[str]:
    return [key.algorithm for identity in mesh.daemon.identities() for key in identity.keys]


def _envoy_keys(mesh: Mesh) -> set[str]:
    """Key types of the certificates that Envoys hold with their keys; "" for one without."""
    found = set()
    for name in mesh.proxies:
        keys = [certificate.public_key() for certificate in certificates_of_envoy(mesh, name)]
        found |= {"rsa2048" if isinstance(key, rsa.RSAPublicKey) else "p256" for key in keys} or {""}
    return found


def _counts(mesh: Mesh) -> Counts:
    """Handshakes as cart's proxy counts them, the server's end."""
    module = mesh.proxies[CART].stats("tls_offload.")
    listeners = mesh.proxies[CART].stats("listener.")

    def envoy(name: str) -> int:
        return sum(value for stat, value in listeners.items() if stat.endswith(f".ssl.{name}"))

    return Counts(
        envoy_ns=sum(process_cpu_ns(mesh.proxies[name].pid) for name in (WEB, CART)),
        daemon_ns=process_cpu_ns(mesh.daemon.pid),
        by_envoy=envoy("handshake"),
        by_module=module.get("tls_offload.handshakes", 0),
        resumed=module.get("tls_offload.handshakes_resumed", 0) + envoy("session_reused"),
        signatures=mesh.daemon.counters().answered(),
    )


def _load(mesh: Mesh, seconds: float) -> tuple[Counter[str], float]:
    """Requests from web to cart, each through a new connection, for this time; returns the answers and the duration."""
    answers: Counter[str] = Counter()
    lock, call = threading.Lock(), mesh.web_to_cart
    began = time.monotonic()

    def run() -> None:
        while time.monotonic() - began < seconds:
            answer = calls.answer(call)
            with lock:
                answers[answer] += 1

    threads = [threading.Thread(target=run) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers, time.monotonic() - began


def _measure(mesh: Mesh, seconds: float, into: Measured) -> Counter[str]:
    before = _counts(mesh)
    answers, took = _load(mesh, seconds)
    after = _counts(mesh)
    into.connections += answers.total()
    into.failures += answers.total() - answers[FROM_CART]
    into.seconds += took
    into.envoy_ns += after.envoy_ns - before.envoy_ns
    into.daemon_ns += after.daemon_ns - before.daemon_ns
    resumed = after.resumed - before.resumed
    into.full_handshakes += after.by_envoy - before.by_envoy + after.by_module - before.by_module - resumed
    into.resumed += resumed
    into.signatures += after.signatures - before.signatures
    return answers


Comparison = Mapping[tuple[str, str], Measured]  # (key type, mode)


def compare(mesh: Mesh, plan: Plan) -> tuple[Step, Comparison]:
    step = Step("offload_against_envoy_tls", "EnvoyTLS against Offload")
    found = {(key_type, mode): Measured() for key_type in KEY_TYPES for mode in MODES}
    for key_type in KEY_TYPES:
        for _ in range(plan.rounds):
            for mode in MODES:
                switch(mesh, mode, key_type)
                answers = _measure(mesh, plan.seconds, found[key_type, mode])
                step.expect(f"web by {mode} with {key_type}", answers, [FROM_CART])
    for (key_type, mode), measured in found.items():
        judge(step, f"{mode} with {key_type}", mode, measured)
    step.counts = {key_type: {mode: found[key_type, mode].as_data() for mode in MODES} for key_type in KEY_TYPES}
    step.shown = f"{sum(one.full_handshakes for one in found.values()):,} full handshakes; table below"
    return step, found


def judge(step: Step, what: str, mode: str, measured: Measured) -> None:
    """Checks that the measurement is what the table says: full handshakes, signed where the mode keeps the key."""
    full = measured.full_handshakes
    step.require(full == measured.connections, f"{what}: {full} full handshakes for {measured.connections} connections")
    step.require(measured.resumed == 0, f"{what}: {measured.resumed} sessions were resumed")
    signed = 2 * measured.connections if mode == "Offload" else 0
    step.require(
        measured.signatures == signed, f"{what}: {measured.signatures} signatures by the daemon instead of {signed}"
    )


def table(found: Comparison) -> RenderableType:
    shown = Table(
        title=f"A new mTLS connection per request, web to cart, {AT_ONCE} at a time, both proxies and the daemon"
    )
    shown.title_justify = "left"
    for column, justify in (
        ("key", "left"), ("mode", "left"), ("connections", "right"), ("failed", "right"), ("per second", "right"),
        ("CPU of both Envoys", "right"), ("of the daemon", "right"), ("together, per connection", "right"),
    ):  # fmt: skip
        shown.add_column(column, justify=justify)  # type: ignore[arg-type]
    for (key_type, mode), measured in found.items():
        data = measured.as_data()
        shown.add_row(
            key_type,
            mode,
            f"{measured.connections:,}",
            f"{measured.failures:,}",
            f"{data['handshakes_per_s']:,.0f}",
            f"{data['envoys_cpu_us_per_connection']:,.0f} us",
            f"{data['daemon_cpu_us_per_connection']:,.0f} us",
            f"{data['cpu_us_per_connection']:,.0f} us",
        )
    shown.caption = (
        "Client and applications, in Python, share the machine: their time is in no column, but slows both modes."
    )
    shown.caption_justify = "left"
    return shown


# --- where the keys are -----------------------------------------------------------------------------------------------


def certificates_of_envoy(mesh: Mesh, name: str) -> Sequence[x509.Certificate]:
    """The certificates that Envoy got together with their keys, by SDS."""
    dump = json.loads(mesh.proxies[name].page("/config_dump?resource=dynamic_active_secrets"))
    found = []
    for config in dump.get("configs", ()):
        chain = config["secret"].get("tls_certificate", {}).get("certificate_chain")
        if chain:
            inline = chain.get("inline_string", "").encode() or base64.b64decode(chain["inline_bytes"])
            found.append(x509.load_pem_x509_certificates(inline)[0])
    return found


def certificates_of_daemon(mesh: Mesh) -> Sequence[x509.Certificate]:
    """What the daemon tells the module: public parts only."""
    found = []
    with mesh.daemon.client() as stub:
        for identity in mesh.daemon.identities():
            wanted = private_key_pb2.WatchIdentityRequest(identity=identity.name)
            watch = stub.WatchIdentity(wanted, timeout=10)
            credentials = next(iter(watch)).credentials
            found += [x509.load_der_x509_certificate(one.certificate_chain[0]) for one in credentials]
            watch.cancel()
    return found


def keys_in_envoys(mesh: Mesh) -> Step:
    """Searches all Envoys' memory for private RSA keys of which only the certificates are known."""
    step = Step("keys_in_envoys", "search of the Envoys' memory")
    found: dict[str, int] = {}
    read = 0
    for mode in MODES:
        switch(mesh, mode, "rsa2048")
        found[mode] = 0
        for name, proxy in mesh.proxies.items():
            own = certificates_of_daemon(mesh) if mode == "Offload" else certificates_of_envoy(mesh, name)
            step.require(bool(own), f"{name} has no certificate in mode {mode}")
            search = memory_search.search_for_factors(proxy.pid, [_modulus(certificate) for certificate in own])
            read += search.bytes_read
            found[mode] += bool(search.findings)
            holds = bool(search.findings) == (mode == "EnvoyTLS")
            step.require(holds, f"in {name} in mode {mode}: {[f.pattern for f in search.findings] or 'no key found'}")
    step.counts = {"envoys": len(mesh.proxies), "with_a_key": found, "bytes_read": read}
    step.shown = f"Offload: no private key in {len(mesh.proxies)} Envoys; EnvoyTLS: in {found['EnvoyTLS']} of them"
    return step


def _modulus(certificate: x509.Certificate) -> int:
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise TypeError("only the factors of RSA keys can be looked for")
    return key.public_numbers().n
