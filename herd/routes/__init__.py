"""The surfaces of the router, one file each; they read requests and shape answers, and decide nothing."""
