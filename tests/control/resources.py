"""Resources that many tests begin with."""

MESH_WITH_IDENTITY = """
type: Mesh
name: default
---
type: MeshIdentity
name: identity
spec:
  selector: {dataplane: {matchLabels: {}}}
  provider: {type: Bundled, bundled: {autogenerate: {enabled: true}}}
"""
