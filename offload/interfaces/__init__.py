"""How the daemon is steered and observed: the admin interface, metrics, the audit log."""
