from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from deploy.node.certificates import KEY_TYPES, Authority, make_key


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_openssl_verifies_what_is_issued(tmp_path: Path, key_type: str) -> None:
    authority = Authority(tmp_path / "ca")
    leaf = authority.issue("www", key_type, tmp_path / "keys", uri="spiffe://demo.test/www")
    line = ["openssl", "verify", "-CAfile", str(authority.ca_file), "-verify_hostname", "www.demo.test"]
    done = subprocess.run([*line, str(leaf.certificate_file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert leaf.certificate_file.parent == tmp_path / "keys" / "www"


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    leaf = Authority(tmp_path / "ca").issue("www", "p256", tmp_path / "keys")
    assert stat.S_IMODE(leaf.key_file.stat().st_mode) == 0o600


def test_unknown_key_type_is_named() -> None:
    with pytest.raises(ValueError, match="'dsa' is not one of the key types"):
        make_key("dsa")
