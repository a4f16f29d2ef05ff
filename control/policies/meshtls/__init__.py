"""The policy: strict or permissive mutual TLS, versions and ciphers."""
