"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


def machine_facts() -> dict[str, str]:
    """Name → value, in the order in which to show them."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    return {
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": f"{os.cpu_count()} × {_cpu_model(cpuinfo)}",
        "cache": _last_level_cache(),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 30} GiB",
        "mitigations": _return_mitigation(),
        "load": " ".join(f"{n:.2f}" for n in os.getloadavg())
        + " (1, 5, 15 minutes; above 0.3 the figures are too high)",
    }


def _cpu_model(cpuinfo: str) -> str:
    """The model by name, with family and model number: a cloud's name for a CPU may say little.

    >>> _cpu_model("model name\\t: AMD EPYC\\ncpu family\\t: 26\\nmodel\\t\\t: 2\\n")
    'AMD EPYC (family 26, model 2)'
    """
    fields = dict(re.findall(r"^([a-z ]+?)\s*:\s*(.*)$", cpuinfo, re.M))
    name = fields.get("model name", platform.processor() or "unknown")
    numbers = [f"{key} {fields[of]}" for key, of in (("family", "cpu family"), ("model", "model")) if of in fields]
    return f"{name} ({', '.join(numbers)})" if numbers else name


def _last_level_cache() -> str:
    caches = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index[0-9]*"))
    sizes = [
        f"L{_line(cache / 'level')} {_line(cache / 'size')}"
        for cache in caches
        if _line(cache / "type") != "Instruction"
    ]
    return ", ".join(sizes) or "unknown"


def _return_mitigation() -> str:
    """What makes each call and return in the kernel dear; it decides what a helper call costs."""
    folder = Path("/sys/devices/system/cpu/vulnerabilities")
    found = {name: _line(folder / name) for name in ("spec_rstack_overflow", "retbleed", "spectre_v2")}
    return (
        "; ".join(f"{name}: {value}" for name, value in found.items() if value and "Not affected" not in value)
        or "none"
    )


def _line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
