"""What a root needs of this host to reach the same package sources: the settings of apt and pip, and certificates.

Everything is taken from the host's own configuration, so no mirror or index is named here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

SUITE = "bookworm"  # Debian 12, which the README names

CERTIFICATE_VARIABLES = (
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
)
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
APT_FILES = ("sources.list", "sources.list.d", "trusted.gpg.d", "keyrings", "auth.conf.d")
NETWORK_FILES = ("/etc/resolv.conf", "/etc/hosts")
LOCAL_CERTIFICATES = "/usr/local/share/ca-certificates"


def _lines(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()


def apt_source(suite: str = SUITE) -> str | None:
    """Address of the archive that this host takes `suite` from; None where it takes it from nowhere."""
    for line in _lines("apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"):
        release, _, address = line.partition(" ")
        if release == suite:
            return address
    return None


def _apt_settings() -> str:
    """How this host reaches its archives: proxies, timeouts, certificates, the check of dates."""
    lines = _lines("apt-config", "dump", "--no-empty", "--format", '%F "%v";%n', "Acquire")
    return "\n".join(line for line in lines if not line.startswith("Acquire::IndexTargets")) + "\n"


def _pip_settings() -> dict[str, dict[str, str]]:
    """Section, key and value of pip's settings, whichever file or variable they come from."""
    settings: dict[str, dict[str, str]] = {}
    for line in _lines(sys.executable, "-m", "pip", "config", "list"):
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        # Variables of the environment win over files, and are listed after them.
        settings.setdefault("global" if section == ":env:" else section, {})[key] = value.strip("'\"")
    return settings


def pip_paths() -> list[Path]:
    """Files and folders of this host that pip's settings name."""
    values = [value for keys in _pip_settings().values() for value in keys.values()]
    words = [Path(word) for value in values for word in value.replace("\\n", " ").split()]
    return [path for path in words if path.is_absolute() and path.exists()]


def _copy(source: Path, root: Path) -> None:
    target = root / source.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif source.is_file():
        target.unlink(missing_ok=True)
        shutil.copyfile(source, target)


def environment() -> dict[str, str]:
    """The variables that say how the network is reached, as this host has them."""
    return {name: os.environ[name] for name in CERTIFICATE_VARIABLES + PROXY_VARIABLES if os.environ.get(name)}


def configure(root: Path, pip_cache: str) -> None:
    """Give `root` this host's apt sources, pip settings, certificates and name servers.

    Certificates that variables or pip's settings name are copied to the same paths. `pip_cache` is a path in the root.
    """
    if apt_source() is not None:
        (root / "etc/apt/sources.list").unlink(missing_ok=True)  # debootstrap's names the same archive once more
    for name in APT_FILES:
        _copy(Path("/etc/apt") / name, root)
    (root / "etc/apt/apt.conf.d/99host").write_text(_apt_settings())
    for file in (*NETWORK_FILES, LOCAL_CERTIFICATES):
        _copy(Path(file), root)
    for name in CERTIFICATE_VARIABLES:
        if (path := Path(os.environ.get(name, ""))).is_file():
            _copy(path, root)
    settings = _pip_settings()
    if (certificate := Path(settings.get("global", {}).get("cert", ""))).is_file():
        _copy(certificate, root)
    settings.setdefault("global", {})["cache-dir"] = pip_cache
    text = "".join(
        f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
        for section, keys in settings.items()
    )
    (root / "etc/pip.conf").write_text(text)
