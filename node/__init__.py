"""The agent beside each inference server: it measures, and tells the router.

It imports `herd.wire` and nothing else of the router.
"""
