"""Policies: one folder each, with its schema and validation (`schema.py`) and its generator (`generate.py`).

Which policies apply to what, and how several are merged, is in `matching.py`; it follows Kuma 3.0.
"""

from control.policies.meshaccesslog.schema import POLICY as MESH_ACCESS_LOG
from control.policies.meshhealthcheck.schema import POLICY as MESH_HEALTH_CHECK
from control.policies.meshhttproute.schema import POLICY as MESH_HTTP_ROUTE
from control.policies.meshloadbalancingstrategy.schema import POLICY as MESH_LOAD_BALANCING_STRATEGY
from control.policies.meshmetric.schema import POLICY as MESH_METRIC
from control.policies.meshoffload.schema import POLICY as MESH_OFFLOAD
from control.policies.meshtls.schema import POLICY as MESH_TLS
from control.policies.meshtrace.schema import POLICY as MESH_TRACE
from control.policies.meshtrafficpermission.schema import POLICY as MESH_TRAFFIC_PERMISSION

POLICIES = (
    MESH_TRAFFIC_PERMISSION,
    MESH_TLS,
    MESH_HTTP_ROUTE,
    MESH_LOAD_BALANCING_STRATEGY,
    MESH_HEALTH_CHECK,
    MESH_ACCESS_LOG,
    MESH_TRACE,
    MESH_METRIC,
    MESH_OFFLOAD,
)
