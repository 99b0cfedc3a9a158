"""Run the command line with `python -m bayesdistill`."""

from bayesdistill.cli import main

if __name__ == "__main__":
    main()
