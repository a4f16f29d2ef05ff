"""Certificate authorities of the mesh: SPIFFE X.509-SVIDs from requests, trust bundles, and the rotation of a CA."""
