"""The running daemon, assembled from the other rooms."""
