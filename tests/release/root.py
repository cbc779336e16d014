"""A bare root of Debian, and commands that run in it on this kernel."""

from __future__ import annotations

import subprocess
from pathlib import Path

#: No compiler, no libbpf, no headers: what a server has that runs Python programs.
PACKAGES = ("ca-certificates", "iproute2", "python3", "python3-venv")
_ENVIRONMENT = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8")


class Root:
    """Made when it is constructed; whoever made its directory removes it."""

    def __init__(self, path: Path, suite: str) -> None:
        """Raises CalledProcessError if mmdebstrap fails; it has said why."""
        self.path = path
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, path], check=True
        )

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command of a shell in it. The mounts are the command's own, and go with it."""
        mounts = " && ".join(f"mount --rbind /{each} {self.path}/{each}" for each in ("proc", "sys", "dev"))
        inside = f"{mounts} && exec chroot {self.path} /usr/bin/env -i {' '.join(_ENVIRONMENT)} sh -c '{command}'"
        return subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", inside],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
