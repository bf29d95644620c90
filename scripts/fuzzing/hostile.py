"""Values that have broken somebody's parser, path check, regular expression or terminal."""
# ruff: noqa: E501 (tables of hostile values)

from __future__ import annotations

from typing import Any

# What a text may hold that is not what it looks like: half characters, overrides, joiners, look-alikes, terminal codes.
ODD_TEXTS = (
    "",
    " ",
    "\t",
    "\n",
    "\x00",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "a\rb",
    "\u202egnp.exe",
    "\u2066\u2067\u2068",
    "\u200b\u200d\ufeff",
    "\u2028\u2029\x85",
    "e" + "\u0301" * 2000,
    "\U0001f9d1\u200d\U0001f680",
    "\ufffe\uffff",
    "ｎａｍｅ",
    "пame",
    "İstanbul",
    "ﬁle",
    "٣",
    "Z͑ͫ̓a͗l̈́g̈o",
    "9" * 5000,
    "x" * 100_000,
    "word " * 20_000,
    "{{", "}}", "{{}}", "{{{{a}}}}", "{{a.b.c}}", "{{ }}", "{{a}} {{", "{% for x in y %}", "{{''.__class__}}", "%s%n", "{0}",
    "${HOME}", "$(id)", "`id`", "; rm -rf /", "' OR 1=1 --", "<script>alert(1)</script>", "::error::owned", "%0A::error::x",
    "=cmd|'/c calc'!A0", "null", "true", "no", "~", ".inf", "-.nan", "1e400", "0x1F", "017", "1_000", "12:30:45", "2026-01-02",
    "<<", "=", "&a", "*a", "!!python/name:os.system", "- a", "a: b", "#", "|", ">", "@", "`", "%", "---", "...",
)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**99, 1e308, -1e308, 5e-324, 0.1, -0.0, 1.5,
    [], {}, [[]], [None], [{}], {"": ""}, {"a": {"b": {"c": 1}}}, [1, "1", 1.0, True], ["a", "a"],
)  # fmt: skip
ODD_MODELS = (
    "", " ", "/", ".", "..", "./", "./missing", "org/", "/org", "org//name", "org/name", "org/name@", "@", "org/name@main",
    "org/name@../../x", "org/name@" + "f" * 40, "Org/Näme", "org/na me", "org/name/more", "a" * 300 + "/b", "org/" + "b" * 300,
    "smollm2-135m-instruct@v2", "SmolLM2-135M-Instruct", "-rf/x", "org/--help", "org/name\n", "org/\x00", "org/%2e%2e", "~",
    "~/model", "~nobody/model", "C:\\model", "\\\\host\\share", "hf://org/name", "file:///etc", "https://host.invalid/model",
    "s3://bucket/model", "data:,x", "org/name:tag", "🦊/🦊", "org/name?x=1#y", "models--org--name/x", "..a/..b", "org/name.git",
)  # fmt: skip
ODD_PATTERNS = (
    "(", ")", "[", "*", "+", "?", "\\", "(?", "(?P<a", "(?P<a>x)(?P<a>y)", "(?P=b)", "(?<=a+)b", "\\8", "a{2,1}",
    "x{99999999999}", "x{4294967295}", "(?i)a(?-i)", "a(?i)", "(?z)", "[z-a]", "[[:alpha:]", "\\p{Nope}", "\\N{NOPE}",
    "(a+)+$", "(a|aa)+$", "(.*)*(.*)*(.*)*x", "(?:a{0,1000}){0,1000}b", "((a{1,200}){1,200}){1,200}", "(?:(?:(?:a{999}){999}){9})",
    "(" * 90 + ")" * 90, "(" * 5000 + ")" * 5000, "(?:" * 5000 + ")" * 5000, "[" * 5000, "a|" * 30_000, "(?R)", "(?=" * 200 + ")" * 200,
    ".", "^$", "\x00", "\ud800", "ß", "(?x) a # b",
)  # fmt: skip
ODD_METRICS = (
    "os:system", "subprocess:run", "..:x", "a:b:c", ":", "a:", ":b", "scores:missing", "own:raises", "own:exits", "own:loops_not",
    "own.sub:x", "__main__:main", "builtins:eval", "runner.cli:main", "scores:__class__", "é:é", "../x:y", "a" * 300 + ":b",
)  # fmt: skip
ODD_ASSIGNMENTS = (
    "", "=", "a", "a=", "=a", ".=1", "a.=1", ".a=1", "a..b=1", "name", "name=", "name==", "name=[", "name={a: b", "name=&a x",
    "name=*a", "name=!!python/name:os.system", "data=1", "data.train=", "data.train.0=x", "data.train.x.y=1", "data.split=null",
    "approach.model.x=1", "hyperparameters.rank=1e400", "hyperparameters.rank=" + "9" * 5000, "seed=" + "[" * 500, "x=\x00",
    "seed=\ud800", "seed=1\n---\nname: x", "name=\x1b[2J", "a." * 2000 + "b=1", "x" * 100_000 + "=1", "eval.pattern=(", "eval=[]",
    "gate.models=[{}]", "é=1", "seed=012", "seed=true", "seed: 3", "--fresh", "hyperparameters={}", "hyperparameters={rank: {a: 1}}",
)  # fmt: skip
SECRET = "canary-5f1d7c"  # what the file outside the roots holds; it must never be shown


def odd_paths(outside: str, home: str) -> tuple[str, ...]:
    """Names of files that are none, lie outside, or look like something else."""
    return (
        "../outside/secret.jsonl", "data/../../outside/secret.jsonl", "./././../outside/secret.jsonl", f"{outside}/secret.jsonl",
        f"file://{outside}/secret.jsonl", f"file:{outside}/secret.jsonl", f"FILE://{outside}/secret.jsonl", f"local://{outside}/secret.jsonl",
        f"file://localhost{outside}/secret.jsonl", f"simplecache::file://{outside}/secret.jsonl", f"zip://x::file://{outside}/a.zip",
        f"filecache::{outside}/secret.jsonl", f"dir://{outside}", "memory://x", "github://o:r@/x", "ftp://127.0.0.1/x", "sftp://h.invalid/x",
        "data:text/plain,x", "reference://x", "link.jsonl", "link-folder/secret.jsonl", "link-folder", "loop.jsonl", "dangling.jsonl",
        "~/secret.jsonl", "~root/x", "$HOME/x", f"{home}/secret.jsonl", "/etc/passwd", "/etc/shadow", "/proc/self/environ",
        "/proc/self/mem", "/proc/self/fd/0", "/dev/zero", "/dev/random", "/dev/stdin", "/dev/fd/0", "/dev/tty", "fifo.jsonl", "data", "data/", ".",
        "..", "/", "//", "", " ", "-", "nul", "a\x00b", "a\nb.jsonl", "\x1b[31mred.jsonl", "\ud800.jsonl", "x" * 300, "a/" * 3000, "missing.jsonl",
        "data/missing.jsonl", "http://", "http:///x", "http://h.invalid:99999/x", "http://[::1", "http://[::1]:0/x.jsonl", "http://u:p@h.invalid/x",
        "http://h.invalid/../../x", "http://h.invalid/a b\r\nX: y", "http://169.254.169.254/latest/meta-data", "https://h.invalid/*.jsonl",
        "s3://", "s3://bucket", "s3://bucket/k*", "gs://b/k", "az://c/b", "hf://datasets/o/n/x.jsonl", "org/name@main", "org/name@main:train",
        "org/name@../../../x", "org/name@a:b:c", "org/name@", "..@x/y@z", "://", "a://b", "x://" + "y" * 5000, "git+ssh://h/x", "C:\\x.jsonl",
    )  # fmt: skip
