"""`python -m k2_tests.simulation`: see the package."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext

from k2_tests.simulation.campaign import run
from k2_tests.simulation.mutations import MUTATIONS
from k2_tests.simulation.scenario import Outcome, Parts, play


def main() -> int:
    """Run seeds, or replay one. Exits 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m k2_tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="0:20000", help="half-open range FIRST:END (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--trace", action="store_true", help="print every step of --seed")
    parser.add_argument("--mutation", choices=sorted(MUTATIONS), help="with this deliberate bug")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.add_argument("--coverage", action="store_true", help="print how often each place, fault and branch was met")
    asked = parser.parse_args()
    if asked.seed is not None:
        return replay(asked.seed, asked.mutation, traced=asked.trace)
    first, end = (int(part) for part in asked.seeds.split(":"))
    campaign, rate = run(range(first, end), mutation=asked.mutation, workers=asked.workers)
    if asked.coverage:
        for name, times in sorted(campaign.met.items()):
            print(f"{times:>12,} {name}")
    for failure in campaign.failures:
        show(failure)
        print(f"replay: python -m k2_tests.simulation --seed {failure.seed} --trace{_with(asked.mutation)}")
    print(f"{rate:,.0f} seeds a second")
    print(campaign.last_line())
    return 1 if campaign.failures else 0


def replay(seed: int, mutation: str | None, *, traced: bool) -> int:
    """Play one seed again, and say what came of it."""
    bug = MUTATIONS[mutation] if mutation else None
    with bug.applied() if bug else nullcontext():
        outcome = play(seed, bug.parts if bug else Parts(), traced=traced)
    show(outcome)
    print(f"seed {seed}: {len(outcome.violations)} promises broken in {outcome.steps} steps")
    return 1 if outcome.violations else 0


def show(outcome: Outcome) -> None:
    """Print the schedule of a seed, where it was kept, and what it broke."""
    for line in outcome.trace or ():
        print(line)
    for violation in outcome.violations:
        print(f"seed {outcome.seed}: {violation.kind}: {violation.what}")


def _with(mutation: str | None) -> str:
    return f" --mutation {mutation}" if mutation else ""


if __name__ == "__main__":
    sys.exit(main())
