"""The same readers under atheris, which looks for inputs that reach new code; for a bounded time.

    python -m tests.fuzz.guided [READER…] [--seconds 20]

Each reader has a process of its own, so that one that aborts does not end the others. An input that breaks a reader is
kept in the folder that is printed. Exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Fuzz each reader in turn."""
    from tests.fuzz.readers import READERS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", metavar="READER")
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    known = [reader.name for reader in READERS]
    if unknown := set(options.readers) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    broken = 0
    for name in options.readers or known:
        kept = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
        command = [sys.executable, "-m", "tests.fuzz.guided", "--inside", name, str(options.seconds), str(kept)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        runs = [line for line in done.stderr.splitlines() if line.startswith("stat::number_of_executed_units")]
        count = runs[0].split()[-1] if runs else "?"
        print(f"{name}: {count} inputs in {options.seconds} s", end="")
        if done.returncode:
            broken += 1
            print(f": BROKEN, see {kept}\n{done.stderr[-3000:]}")
        else:
            print()
            shutil.rmtree(kept)
    return 1 if broken else 0


def _inside(name: str, seconds: str, kept: str) -> None:
    import atheris

    with atheris.instrument_imports(include=["distill.config_file", "distill.yaml_document", "distill.data"]):
        from tests.fuzz.readers import READERS

    reader = next(each for each in READERS if each.name == name)
    corpus = Path(kept) / "corpus"
    corpus.mkdir()
    (corpus / "good").write_bytes(reader.good)

    def once(content: bytes) -> None:
        folder = Path(tempfile.mkdtemp())
        try:
            reader.read(content, folder)
        except reader.refusals:
            pass
        finally:
            shutil.rmtree(folder)

    limits = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=4096", f"-artifact_prefix={kept}/"]
    atheris.Setup([sys.argv[0], *limits, "-print_final_stats=1", str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        _inside(*sys.argv[2:5])
    else:
        sys.exit(main())
