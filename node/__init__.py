"""The agent on each machine with an engine: it measures, and reports to the router.

It imports `herd.wire` and nothing else of the router.
"""
