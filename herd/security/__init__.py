"""What stands between the network and the router: how a connection is read, and who may ask what."""
