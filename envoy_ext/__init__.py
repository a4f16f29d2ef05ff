"""The Envoy side: the dynamic module (folder `module`, C++) and functions that render Envoy configuration for it.

from envoy_ext import render, settings

tls = settings.TlsSettings(identities=("www",))
print(render.to_yaml(render.bootstrap([render.http_listener("https", 443, tls, routes)])))
"""
