"""Generated tests judge results, not the speed of the machine they happen to run on."""

from hypothesis import HealthCheck, settings

settings.register_profile("ifpp", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ifpp")
