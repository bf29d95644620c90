"""What is or looks like a secret is not shown: three asterisks stand in its place, wherever we print or write text.

What this process knows as a secret (`remember`) is found by its value, anything else by the shape of its kind.
"""

from __future__ import annotations

import html
import json
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, TextIO
from urllib.parse import quote, unquote, urlsplit

MASK = "***"
SHORTEST = 8  # of a value that is looked for: a shorter one would be found in ordinary words

# Kind, what a text that holds one holds in lower case (looked for first, because that is fast), and the pattern. The
# prefixes are the vendors' own, made for scanners to find.
SHAPES = tuple(
    (kind, needle, re.compile(pattern))
    for kind, needle, pattern in (
        (
            "private key",
            "private key-----",
            r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[^-]{0,200}?[A-Za-z0-9+/]{20}(?:[\w\s+/=]|\\[nr])*",
        ),
        ("AWS key", "akia", r"\bAKIA[0-9A-Z]{16}\b(?<!EXAMPLE)"),
        ("AWS key", "asia", r"\bASIA[0-9A-Z]{16}\b"),
        ("GitHub token", "_", r"g(?:h[pousr]_[A-Za-z0-9]{36,}|ithub_pat_\w{50,})"),
        ("GitLab token", "glpat-", r"(?<![\w-])glpat-[\w-]{20,}"),
        ("Slack token", "xox", r"(?<![\w-])xox[abeprs]-[0-9]{6,}[0-9A-Za-z-]{10,}"),
        ("OpenAI or Anthropic key", "sk-", r"(?<![\w-])sk-(?=[\w-]*\d)(?:(?=[\w-]*[A-Z])[\w-]{20,}|[0-9a-f]{32,}\b)"),
        ("Stripe key", "_", r"[rs]k_live_[0-9A-Za-z]{20,}"),
        ("Hugging Face token", "_", r"hf_[A-Za-z0-9]{34,}\b"),
        ("W&B key", "wandb_v", r"\bwandb_v\d_\w{20,}"),
        ("Groq key", "gsk_", r"\bgsk_[A-Za-z0-9]{40,}"),
        ("NVIDIA key", "nvapi-", r"(?<![\w-])nvapi-[\w-]{40,}"),
        ("PyPI token", "pypi-", r"(?<![\w-])pypi-[\w-]{60,}"),
        ("Google key", "aiza", r"\bAIza[\w-]{35}"),
        ("Google token", "ya29.", r"\bya29\.[\w-]{20,}"),
        ("JSON web token", "eyj", r"(?<![\w-])eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{10,}"),
        ("bearer token", "bearer ", r"\b[Bb]earer (?=[\w.~+/-]*\d)(?=[\w.~+/-]*[A-Za-z])[\w.~+/-]{20,}"),
        ("login", "basic ", r"\b[Bb]asic (?=[\w+/]*[\d+/=])[\w+/]{12,}={0,2}"),
    )
)
# A user and password before the host, and what signs a request in its query, of a URL anywhere in a text.
_IN_URL = re.compile(
    r"(?P<before>://)(?!\[\^)[^/\s@\"'<>\\]{1,512}(?P<after>@)"
    r"|(?P<key>[?&;][\w.-]{0,64}(?:token|secret|signature|sig|key|passw|pwd|credential)[\w.-]{0,64}=)[^&\s\"'<>#\\]+",
    re.IGNORECASE,
)
_NAMES = r"(?:api[-_]?key|access[-_]?key|private[-_]?key|secret(?:[-_]?key)?|token|passwd|password|pwd|credentials?)"
_SECRET_NAME = re.compile(rf"(?:.*[-_.])?{_NAMES}", re.IGNORECASE)
# In a manifest or on a command line: everything that stands behind such a name. A name that ends otherwise, such as
# api_key_env or max_new_tokens, is another one; but what api_key_env holds may be the key itself.
_ASSIGNED = re.compile(
    rf"(?P<name>(?<![\w-])(?:--)?[\w.-]{{0,64}}{_NAMES}[\"']?\s*[:=]\s*)(?P<value>(?!\s*(?:null|~|['\"]{{2}})?\s*$)[^\n]+)"
    rf"|(?P<option>--[\w-]{{0,64}}{_NAMES}\s+)(?P<argument>\S+)"
    r"|(?P<env>api_key_env[\"']?\s*[:=]\s*[\"']?)(?P<given>[^\s\"',}#][^\"',}#\n]*)",
    re.IGNORECASE,
)
_ENVIRONMENT_NAME = re.compile(r"(?!(?=\w*\d)[A-Za-z0-9]{20,}$)[A-Za-z_][A-Za-z0-9_]*")  # a key has no underscores
_BLOCK = re.compile(rf"(?P<indent>\s*)(?:- )?[\"']?[\w.-]*{_NAMES}[\"']?\s*:\s*[|>]?[-+0-9]*\s*(?:#.*)?", re.IGNORECASE)
_HOLDS_SECRETS = re.compile(r"(?:key|token|secret|passw|pwd|credential|auth)", re.IGNORECASE)
_HOLDS_NONE = re.compile(r"_(?:FILE|PATH|DIR|ENV|URL|SOCK|NAME|PARALLELISM)$")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_known: set[str] = set()  # what `remember` found; the values themselves, so it never leaves this module


def remember(environment: Mapping[str, str]) -> None:
    """Learns the secrets of an environment: by the names of its variables, and the passwords in its URLs."""
    for name, value in environment.items():
        if "://" in value:
            remember_values(*_logins(value))
        elif _HOLDS_SECRETS.search(name) and not _HOLDS_NONE.search(name) and not value.startswith("/"):
            remember_values(value)


def remember_values(*values: str) -> None:
    """Learns secrets that came from elsewhere, such as a file."""
    for value in values:
        if len(secret := value.strip()) >= SHORTEST:
            _known.update((secret, quote(secret, safe=""), html.escape(secret), json.dumps(secret)[1:-1]))


def _logins(url: str) -> list[str]:
    try:
        password = urlsplit(url).password
    except ValueError:
        return []
    return [password, unquote(password)] if password else []


def masked(text: str) -> str:
    """The text without the secrets that are known and those that are plain by their shape."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, MASK)
    lower = text.lower()
    for _, needle, pattern in SHAPES:
        if needle in lower:
            text = pattern.sub(MASK, text)
    if "://" in lower:
        text = _IN_URL.sub(lambda found: f"{found['before'] or found['key']}{MASK}{found['after'] or ''}", text)
    return text


def masked_value(value: Any) -> Any:
    """Plain data, keys as well, with `masked` texts."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {masked_value(key): masked_value(item) for key, item in value.items()}
    return [masked_value(item) for item in value] if isinstance(value, Sequence) else value


def masked_source(text: str) -> str:
    """Lines of a manifest, or an argument of the command line: what stands behind the name of a secret is masked too,
    on its line and on the lines below that belong to it. The number of lines stays."""
    lines, deeper_than = [], -1
    for line in text.split("\n"):
        indent = len(line) - len(line.lstrip())
        if deeper_than >= 0 and line.strip() and indent > deeper_than:
            lines.append(line[:indent] + MASK)
            continue
        found = _BLOCK.fullmatch(line)
        deeper_than = len(found["indent"]) if found else -1 if line.strip() else deeper_than
        lines.append(masked(_ASSIGNED.sub(_hidden, line)))
    return "\n".join(lines)


def _hidden(found: re.Match[str]) -> str:
    if found["env"] and is_environment_name(found["given"].strip()):
        return found[0]
    return f"{found['name'] or found['option'] or found['env']}{MASK}"


def is_secret_name(name: str) -> bool:
    """Whether a key of that name would hold a secret."""
    return _SECRET_NAME.fullmatch(name) is not None


def is_environment_name(text: str) -> bool:
    """Whether it is the name of an environment variable, and not a key in its place."""
    return _ENVIRONMENT_NAME.fullmatch(text) is not None and kind_of_secret(text) is None


def kind_of_secret(text: str) -> str | None:
    """The kind of a key or token in the text, by its shape; never the thing itself."""
    lower = text.lower()
    return next((kind for kind, needle, pattern in SHAPES if needle in lower and pattern.search(text)), None)


def printable(text: str) -> str:
    """The text without what would move the cursor, colour the terminal or turn the order of letters; line ends and tabs
    stay."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def print_exception(error: BaseException, file: TextIO | None = None) -> None:
    """The traceback, masked: a library's message, or a line of source, may hold what nobody should read."""
    print(masked("".join(traceback.format_exception(error))), end="", file=file or sys.stderr, flush=True)


class MaskedStream:
    """A text stream whose writes are masked, in place of sys.stderr: libraries warn and log there."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the masked text; the length is the whole text's, as nothing of it is left to write."""
        self._stream.write(masked(text))
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        """Writes each line."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
