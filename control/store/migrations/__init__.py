"""Migrations of the store, run by alembic (see migrate.py)."""
