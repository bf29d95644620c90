"""The licences of what is installed, counted, and every package whose metadata names none or one to look at."""

from __future__ import annotations

from collections import Counter
from importlib import metadata

PERMISSIVE = ("apache", "mit", "bsd", "psf", "python", "isc", "mpl", "mozilla", "unlicense", "0bsd", "zlib", "hpnd")


def licence(package: metadata.Distribution) -> str:
    """The licence as the package's metadata has it; empty where it has none."""
    found = package.metadata
    classifiers = [c.rpartition(" :: ")[2] for c in found.get_all("Classifier") or () if c.startswith("License ::")]
    written = (found.get("License") or "").strip().splitlines()
    return found.get("License-Expression") or ", ".join(classifiers) or (written[0][:60] if written else "")


def main() -> None:
    """Prints the licences of the environment that it runs in."""
    known = {p.metadata["Name"]: licence(p) for p in metadata.distributions()}
    to_look_at = sorted(name for name, text in known.items() if not any(word in text.lower() for word in PERMISSIVE))
    counted = ", ".join(f"{num} {text or 'unknown'}" for text, num in Counter(known.values()).most_common(8))
    print(f"licences: {len(known)} packages; {counted}")
    for name in to_look_at:
        print(f"licences: to look at: {name}: {known[name] or 'its metadata names none'}")


if __name__ == "__main__":
    main()
