"""Runs `sadp-bench` as `python -m sadp_bench`."""

from sadp_bench.cli.app import main

if __name__ == "__main__":
    main()
