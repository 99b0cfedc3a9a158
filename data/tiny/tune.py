"""Choose the learning rate and the weight decay before the grid is made: a few small cells at three rates.

    python data/tiny/tune.py --workers 2

The runs are logged with `experiment` = tuning and enter no table of results but tuning.csv.
"""

from __future__ import annotations

import argparse

from design import tuning
from grid import make


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    make(tuning(), parser.parse_args().workers)


if __name__ == "__main__":
    main()
