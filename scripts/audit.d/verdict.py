"""What pip-audit found, as an exit code: 0 all were looked up and are clean, 1 some are vulnerable, 69 some unknown."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(path: Path) -> int:
    """Prints what was found, and returns the exit code."""
    try:
        packages = json.loads(path.read_text())["dependencies"]
    except (OSError, ValueError, LookupError):
        packages = []
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    found = [(package, fault) for package in packages for fault in package.get("vulns", ())]
    for package, fault in found:
        fixed = ", ".join(fault["fix_versions"]) or "no version yet"
        print(f"audit: {package['name']} {package['version']}: {fault['id']}; fixed in {fixed}")
    print(f"audit: {len(packages) - len(unknown)} packages looked up, {len(found)} vulnerabilities")
    if unknown:
        print(f"audit: {len(unknown)} not looked up: {', '.join(unknown[:5])}{' ...' if len(unknown) > 5 else ''}")
    return 1 if found else 69 if unknown or not packages else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
