"""The scanners that anybody may point at us, sslyze and testssl.sh: what they say, as outcomes."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.judge import Outcome
from tests.conformance.rig import SERVER_NAME, Target

SECONDS = 900  # testssl.sh takes three minutes on a quiet machine, most of it waiting
Seen = dict[str, Outcome]  # by check

# ---- sslyze ----

FORWARD_SECRET = re.compile(r"TLS_(ECDHE_(RSA|ECDSA)_WITH_)?(AES_(128|256)_GCM_SHA(256|384)|CHACHA20_POLY1305_SHA256)")
OLD = {"ssl_2_0": "SSL 2.0", "ssl_3_0": "SSL 3.0", "tls_1_0": "TLS 1.0", "tls_1_1": "TLS 1.1"}
OFFERED = {"tls_1_2": "TLS 1.2", "tls_1_3": "TLS 1.3"}
# Check: (scan, field, the right value).
FACTS: Mapping[str, tuple[str, str, bool]] = {
    "compression": ("tls_compression", "supports_compression", False),
    "early data": ("tls_1_3_early_data", "supports_early_data", False),
    "CCS injection": ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection", False),
    "TLS_FALLBACK_SCSV": ("tls_fallback_scsv", "supports_fallback_scsv", True),
    "Heartbleed": ("heartbleed", "is_vulnerable_to_heartbleed", False),
    "secure renegotiation": ("session_renegotiation", "supports_secure_renegotiation", True),
    "client renegotiates": ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos", False),
    "extended master secret": ("tls_extended_master_secret", "supports_ems_extension", True),
}
NOTHING_ELSE = ("--mozilla_config", "disable")
SAFE_FROM_ROBOT = ("NOT_VULNERABLE_NO_ORACLE", "NOT_VULNERABLE_RSA_NOT_SUPPORTED")


class ScanFailed(RuntimeError):
    """The scanner did not do its work; the message holds the end of what it wrote."""


def _ran(line: list[str | Path], known: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=SECONDS, stdin=subprocess.DEVNULL)
    if done.returncode not in known:
        raise ScanFailed(f"{line[0]} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def _suites(result: Mapping[str, Any]) -> list[str]:
    return sorted(one["cipher_suite"]["name"] for one in result["accepted_cipher_suites"])


@dataclass(frozen=True)
class Sslyze:
    """In an environment of its own: it pins another `cryptography` than ours."""

    python: Path
    name: str = "sslyze"

    def version(self) -> str:
        code = "import importlib.metadata as m; print(m.version('sslyze'))"
        return _ran([self.python, "-c", code]).strip()

    def _scan(self, port: int, file: Path, *options: str | Path) -> tuple[dict[str, Any], str]:
        line: list[str | Path] = [self.python, "-m", "sslyze", "--sni", SERVER_NAME, "--json_out", file, *options]
        said = _ran([*line, f"127.0.0.1:{port}"], known=(0, 1))  # 1: not as Mozilla recommends
        found = json.loads(file.read_text())["server_scan_results"][0]
        if found["scan_status"] != "COMPLETED":
            raise ScanFailed(f"sslyze: {found['scan_status']} at port {port}:\n{said[-2000:]}")
        return {name: one["result"] for name, one in found["scan_result"].items() if one["status"] == "COMPLETED"}, said

    def scan(self, target: Target, folder: Path) -> Seen:
        file = folder / f"sslyze-{target.side}-{target.key}.json"
        # Naming a scan leaves out those that are not named, and Mozilla's recommendation with them.
        result, said = self._scan(target.port, file, "--certinfo_ca_file", target.ca)
        more, _ = self._scan(target.port, file.with_suffix(".more.json"), "--early_data", *NOTHING_ELSE)
        result |= more
        seen: Seen = {}
        for scan, name in OLD.items():
            suites = _suites(result[f"{scan}_cipher_suites"])
            seen[name] = Outcome(", ".join(suites) or "not spoken", not suites)
        for scan, name in OFFERED.items():
            suites = _suites(result[f"{scan}_cipher_suites"])
            weak = [suite for suite in suites if not FORWARD_SECRET.fullmatch(suite)]
            text = f"weak: {', '.join(weak)}" if weak else f"{len(suites)} suites, all with forward secrecy and AEAD"
            seen[f"{name} cipher suites"] = Outcome(text, not weak and bool(suites))
        for name, (scan, field, right) in FACTS.items():
            value = result[scan][field]
            seen[name] = Outcome("yes" if value else "no", value is right)
        seen["ROBOT"] = self._robot(result)
        kx, _ = self._scan(target.rsakx, file.with_suffix(".rsakx.json"), "--robot", *NOTHING_ELSE)
        seen["ROBOT, RSA key exchange allowed"] = self._robot(kx)
        compliant = "OK - Compliant" in said
        problems = [line.strip(" *") for line in said.splitlines() if line.startswith("        * ")]
        text = "as recommended" if compliant else "; ".join(problems)
        seen["Mozilla's recommendation, intermediate"] = Outcome(text, compliant)
        return seen

    @staticmethod
    def _robot(result: Mapping[str, Any]) -> Outcome:
        answer = result["robot"]["robot_result"]
        return Outcome(answer.lower().replace("_", " "), answer in SAFE_FROM_ROBOT)


# ---- testssl.sh ----

RIGHT = ("OK", "INFO")
SCANS: tuple[str, ...]
SCANS = ("--protocols", "--std", "--pfs", "--server-preference", "--server-defaults", "--vulnerable", "--grease")
SCANS += ("--client-simulation",)
OF_THE_SCANNER = ("engine_problem",)  # what its openssl lacks
COMES_TO_ITS_END = {"TLS1_3", "cert_trust", "RC4", "GREASE", "clientsimulation"}  # a check of each scan


@dataclass(frozen=True)
class Testssl:
    """Debian's package. INFO is left out: it says what is there, not whether that is good."""

    program: str = "testssl"
    name: str = "testssl.sh"

    def version(self) -> str:
        found = re.search(r"testssl(?:\.sh)?\s+(\d[\w.]*)", _ran([self.program, "--version", "--color", "0"]))
        if found is None:
            raise ScanFailed("testssl.sh does not tell its version")
        return found[1]

    def scan(self, target: Target, folder: Path) -> Seen:
        file = folder / f"testssl-{target.side}-{target.key}.json"
        line: list[str | Path] = [self.program, "--quiet", "--warnings", "batch", "--color", "0", "--nodns", "none"]
        line += ["--ip", "127.0.0.1", "--add-ca", target.ca, "--jsonfile", file, *SCANS]
        # Its status counts what it did not like; from 242 on, it failed.
        said = _ran([*line, f"{SERVER_NAME}:{target.port}"], known=tuple(range(242)))
        findings = json.loads(file.read_text())
        ids = {one["id"] for one in findings}
        if not {name.partition("-")[0] for name in ids} >= COMES_TO_ITS_END:
            raise ScanFailed(f"testssl.sh did not come to its end:\n{said[-2000:]}")
        judged = [one for one in findings if one["severity"] != "INFO" and one["id"] not in OF_THE_SCANNER]
        return {one["id"]: self._outcome(one) for one in judged}

    @staticmethod
    def _outcome(one: Mapping[str, str]) -> Outcome:
        return Outcome(one["severity"], one["severity"] in RIGHT, one["finding"])
