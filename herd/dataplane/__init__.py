"""Where bytes flow: one request's life from the client's first byte to the node's last."""
