"""The running daemon, put together from the other rooms."""
