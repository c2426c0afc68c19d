"""What the machine is, for the head of a report."""

import datetime
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from . import native


def stamp(cores: list[int]) -> dict[str, str]:
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "processor": processor(),
        "caches": caches(),
        "cores": f"{len(cores)} to use; one thread runs on core {cores[0]}",
        "load average": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "instruction set": native.live_isa(),
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": sys.version.split()[0],
    }


def commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=native.ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = {
        key: match[1]
        for key in ("model name", "cpu family", "model")
        if (match := re.search(rf"^{key}\s*: (.+)", text, re.M))
    }
    return ", ".join(value if key == "model name" else f"{key} {value}" for key, value in found.items())


def caches() -> str:
    found = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found) or "unknown"
