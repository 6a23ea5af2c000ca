"""`python -m sadp_bench`, the same as `sadp-bench`."""

from sadp_bench.cli.app import main

if __name__ == "__main__":
    main()
