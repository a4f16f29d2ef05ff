"""The store: resources with optimistic versions, secrets encrypted at rest. SQLite in WAL mode by default.

The database is named by a SQLAlchemy URL, and only SQL that PostgreSQL has too is used outside `engine.py` and
`backup.py`, so that several replicas on PostgreSQL are a matter of those two files.
"""
