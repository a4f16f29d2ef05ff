"""Resources: what users write, as frozen pydantic models, with errors that say what to write instead."""
