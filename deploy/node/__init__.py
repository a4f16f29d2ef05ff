"""One node on this machine, made of real parts: daemon, stock Envoys, backend, certificates.

The demo and the handshake benchmark are built from it. Everything lives in one folder and ends with it.
"""
