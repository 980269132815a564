"""What holds for all tests: how hard Hypothesis tries.

`scripts/soak` is the slow run: many times the examples.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("ordinary", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "soak", deadline=None, max_examples=20_000, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ordinary"))
