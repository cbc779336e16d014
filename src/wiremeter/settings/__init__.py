"""Settings: what they are, where they come from, and what is wrong with a bad one."""

from wiremeter.settings.catalogue import DEFAULT_LISTEN, Settings
from wiremeter.settings.sources import CONFIG_VARIABLE, ENVIRONMENT_PREFIX, load_settings
from wiremeter.settings.values import Listen

__all__ = ["CONFIG_VARIABLE", "DEFAULT_LISTEN", "ENVIRONMENT_PREFIX", "Listen", "Settings", "load_settings"]
