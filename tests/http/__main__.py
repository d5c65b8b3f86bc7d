"""`make fuzz SECONDS=600`: the properties of HTTP on new bytes until the time is up.

A failure is shrunk and printed, and ends it; SEED= begins with a seed of an earlier run.
"""

import argparse
import random
import sys
import time
from collections import Counter

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.http import mutations, properties


PROPERTIES = [
    (properties.engine_reads_what_the_client_meant, (mutations.requests,)),
    (properties.cuts_of_a_request_do_not_matter, (mutations.requests, mutations.places)),
    (properties.client_reads_what_the_engine_meant, (mutations.answers,)),
    (properties.cuts_of_an_answer_do_not_matter, (mutations.answers, mutations.places)),
]
ROUND = settings(
    max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    tried, number, end = Counter(), options.seed, time.monotonic() + options.seconds
    while time.monotonic() < end:
        for check, strategies in PROPERTIES:

            def one(drawn):
                tried[check.__name__] += 1  # noqa: B023 - called within this round
                check(*drawn)  # noqa: B023

            sys.stdout.write(f"seed {number}: {check.__name__}\n")
            seed(number)(ROUND(given(st.tuples(*strategies))(one)))()
        number += 1
    for name, count in tried.items():
        sys.stdout.write(f"{count:9,}  {name}\n")


main()
