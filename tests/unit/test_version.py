"""The version is told in one place."""

from __future__ import annotations

from importlib import metadata

import wiremeter


def test_the_installed_package_has_the_version_of_the_module() -> None:
    assert metadata.version("wiremeter") == wiremeter.__version__
