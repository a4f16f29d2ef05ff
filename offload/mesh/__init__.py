"""The daemon as a node of a mesh: identities, trust and settings come from a control plane, keys stay here."""
