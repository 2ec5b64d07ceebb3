"""Upper bounds of the histograms, in the metric's unit. Each costs one line per series, so there are few.

ADR 17 has the reasoning. Removing a bound keeps quantiles over older samples valid; moving one does not.
"""

from typing import Final

DURATIONS: Final = (0.25, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1200.0)
ATTEMPTS: Final = (0.25, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
FIRST_TOKEN: Final = (0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
FIRST_TOKEN_OF_NODE: Final = (0.1, 0.25, 1.0, 2.5, 5.0, 10.0, 30.0)
PER_TOKEN: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 2.5)
PER_TOKEN_OF_NODE: Final = (0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0)
PREFILLS: Final = (0.1, 1.0, 5.0, 30.0)
DECODES: Final = (1.0, 5.0, 20.0, 60.0)
# Most requests do not wait: without the bound 0 their percentiles would look like a wait of milliseconds.
WAITS: Final = (0.0, 0.1, 1.0, 5.0, 30.0, 60.0, 300.0)
LOADS: Final = (1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 120.0, 300.0, 600.0)
DECISIONS: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
OVERHEADS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
LAGS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
COMMITS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
RATIOS: Final = (0.1, 0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0, 10.0)
SIGNALLED: Final = (-10.0, -1.0, -0.1, 0.0, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
