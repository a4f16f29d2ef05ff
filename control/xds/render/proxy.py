"""Everything one proxy gets, as plain dictionaries: a pure function of the mesh and the proxy's name.

It contains only what the proxy references: its own inbounds, the services it calls, and where their routes lead.
"""

from __future__ import annotations

from control.mesh.choice import IN_FORCE, Choice
from control.mesh.proxy_policies import settings_of
from control.mesh.view import MeshView
from control.model.identity import Credential
from control.model.resource import Resource
from control.policies.meshtls import generate as tls
from control.xds.encoding.shared import SharedConfigs
from control.xds.render import admin, inbounds, metrics, outbounds, tracing
from control.xds.render.context import ProxyConfig, ProxyContext


def render(
    view: MeshView,
    dataplane: Resource,
    credential: Credential | None = None,
    choice: Choice = IN_FORCE,
    shared: SharedConfigs | None = None,
) -> ProxyConfig:
    """`credential` goes into the secret of the proxy's identity; without it Envoy waits for the secret.

    `shared`: what proxies of this view have in common.
    """
    config, settings = ProxyConfig(), settings_of(view, dataplane, choice)
    identity, problem = view.identity_of(dataplane), view.identity_problem(dataplane)
    if problem is not None:
        config.problems.append(problem)
    traced = tracing.add(view, dataplane, settings, config)
    shared = shared or SharedConfigs()
    context = ProxyContext(view, dataplane, settings.policies, settings, identity, traced, shared)
    inbounds.add(context, config)
    admin.add(context, config)
    outbounds.add(context, config)
    metrics.add(context, config)
    _add_secrets(context, credential, config)
    return config


def _add_secrets(context: ProxyContext, credential: Credential | None, config: ProxyConfig) -> None:
    identity, bundles = context.identity, context.view.trust_bundles
    if identity is None:
        return
    if not bundles:
        config.problems.append("the mesh has no MeshTrust: no peer can be verified")
    elif identity.trust_domain not in context.view.trust_domains:
        config.problems.append(
            f"there is no MeshTrust of {identity.trust_domain}, the trust domain of this proxy: no peer accepts it"
        )
    if bundles and context.settings.offload.mode == "EnvoyTLS":
        is_server = bool(context.dataplane.spec.networking.inbound) or admin.ADMIN_LISTENER in config.listeners
        config.secrets |= tls.trust_secrets(bundles, config.clusters.values(), is_server)
    if credential is not None:
        config.secrets[tls.IDENTITY_SECRET] = tls.identity_secret(credential.chain_pem, credential.key_pem)
