"""`python -m export` is the `export` command (whose bare name bash keeps for its builtin)."""

from export.cli import main

if __name__ == "__main__":
    main()
