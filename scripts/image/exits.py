"""Each exit code of the table, reached in a container for a real reason."""

from __future__ import annotations

from collections.abc import Callable

from image.bench import FULL, Bench, expect, last_lines, stage, wait_for

PLAIN = "plain/soak.yaml"


def _tiny(manifest: str, *arguments: str, more: tuple[str, ...] = ()) -> Callable[[Bench], int]:
    def reach(bench: Bench) -> int:
        out = bench.fresh(f"exit-{bench.passed + bench.failed}")
        return bench.run(manifest, "--out", "/out/run", *arguments, out=out, more=more).code

    return reach


def _usage(bench: Bench) -> int:
    return bench.engine.run(FULL, "--nonsense", options=bench.hardened).code


def _internal(bench: Bench) -> int:
    """An attempt that was killed before it saved anything, and another one, where one is allowed."""
    out = bench.fresh("exit-internal")
    with bench.start("idle/soak.yaml", "--out", "/out/run", out=out) as container:
        wait_for(lambda: stage(out / "run") == "train", container, 300)
        container.kill()
        container.wait()
    return bench.run("idle/soak.yaml", "--out", "/out/run", out=out).code


def _unusable(bench: Bench) -> int:
    """The usual accident: a folder of root's, mounted for somebody else."""
    out = bench.folder / "exit-unusable"
    out.mkdir(mode=0o755)
    done = bench.run(PLAIN, "--out", "/out/run", out=out)
    expect("chown" in done.text or "--user" in done.text, f"no advice: {last_lines(done.text)}")
    return done.code


def _full(bench: Bench) -> int:
    """A disk of 64 kB."""
    disk = ("--tmpfs", "/small:rw,size=64k,mode=1777")
    return bench.run(PLAIN, "--out", "/small/run", out=bench.fresh("exit-full"), more=disk).code


def _interrupted(bench: Bench) -> int:
    out = bench.fresh("exit-interrupted")
    with bench.start("long/soak.yaml", "--out", "/out/run", out=out) as container:
        wait_for(lambda: stage(out / "run") == "train", container, 300)
        container.stop(10)
        return container.wait()


REACHED: dict[int, tuple[str, Callable[[Bench], int]]] = {
    0: ("a run to its end", _tiny(PLAIN)),
    3: ("a budget that is too small", _tiny(PLAIN, "--set", "budget.max_hours=0.0000001")),
    64: ("an unknown flag", _usage),
    65: ("rows without answers", _tiny("rejected/soak.yaml")),
    66: ("no such manifest", _tiny("missing.yaml")),
    69: ("a judge that nobody serves", _tiny("unreached/soak.yaml")),
    70: ("killed again before anything was saved", _internal),
    73: ("a folder that another user owns", _unusable),
    74: ("a full disk", _full),
    75: ("docker stop", _interrupted),
    77: ("a key that is not set", _tiny("keyless/soak.yaml")),
    78: ("a seed in words", _tiny(PLAIN, "--set", "seed=seven")),
}


def check_exits(bench: Bench) -> None:
    """One check a code; none of the table may be left out."""
    from runner.errors import EXIT_CODES

    bench.check("exit codes, all of the table", lambda _: _complete(set(EXIT_CODES)))
    for code, (reason, reach) in REACHED.items():
        bench.check(f"exit code {code}", lambda b, c=code, w=reason, r=reach: _reached(b, c, w, r))


def _complete(codes: set[int]) -> str:
    expect(codes == set(REACHED), f"not reached: {sorted(codes ^ set(REACHED))}")
    return f"{len(codes)}"


def _reached(bench: Bench, code: int, reason: str, reach: Callable[[Bench], int]) -> str:
    found = reach(bench)
    expect(found == code, f"{reason}: {found}")
    return reason
