"""What writes documents and their site: reference pages from the code (`python -m docs.publishing.reference`), and the
site out of all pages (`python -m docs.publishing.site`, which is `make docs`)."""
