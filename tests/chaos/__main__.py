"""`python -m tests.chaos --seconds N --seed S`: see `make chaos`. Exit status 1 on a violation."""

import argparse
import random
import sys

from tests.chaos.run import chaos


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=None, help="replays a run's actions")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    say(f"chaos for {options.seconds:.0f} s, --seed {seed}")
    tally = chaos(options.seconds, seed, say)
    say(tally.report())
    say(f"seed {seed}: {'violated' if tally.violations else 'all well'}")
    return 1 if tally.violations else 0


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
