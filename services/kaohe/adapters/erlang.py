"""What queueing theory says about one queue with equal agents: Erlang B, Erlang C and Erlang A.

The simulator is checked against these formulas. Rates are per second, times in seconds. Symbols: ``n`` agents, arrival
rate λ, service rate μ (one agent), impatience rate θ, offered load a = λ/μ erlang.

Sources. Erlang B and C: A. K. Erlang, "Solution of some problems in the theory of probabilities of significance in
automatic telephone exchanges", 1917. Erlang A (M/M/n+M): C. Palm, 1943; the forms used here follow A. Mandelbaum and
S. Zeltyn, "The Palm/Erlang-A queue, with applications to call centers", 2004 (state probabilities, P(Ab) and E[W]), and
F. Baccelli and G. Hebuterne, "On queues with impatient customers", 1981 (density of the virtual wait).
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, expm1, inf, isfinite, log

import msgspec


class QueueFigures(msgspec.Struct, frozen=True):
    """What a queue does in the long run.

    ``wait_probability``: share of callers who must wait. ``abandonment``: share of callers who hang up.
    ``mean_wait_s``: mean wait of all callers. ``speed_of_answer_s``: mean wait of those answered.
    ``service_level``: share of *all* callers answered within the threshold. ``occupancy``: share of time agents talk.
    """

    wait_probability: float
    abandonment: float
    mean_wait_s: float
    speed_of_answer_s: float
    service_level: float
    occupancy: float


def erlang_b(agents: int, load: float) -> float:
    """Blocking probability of ``agents`` lines under ``load`` erlang, by the stable recursion B(k) = aB/(k + aB)."""
    assert agents >= 0
    assert load > 0
    blocking = 1.0
    for k in range(1, agents + 1):
        blocking = load * blocking / (k + load * blocking)
    return blocking


def erlang_c(agents: int, arrivals: float, services: float, threshold_s: float) -> QueueFigures:
    """Figures of M/M/n without abandonment. Needs λ < nμ, or the queue grows without end.

    P(W > 0) = nB/(n − a(1 − B)); P(W ≤ T) = 1 − P(W > 0)·exp(−(nμ − λ)T); E[W] = P(W > 0)/(nμ − λ).
    """
    load = arrivals / services
    assert 0 < load < agents, "the agents cannot keep up: Erlang C has no steady state"
    blocking = erlang_b(agents, load)
    waits = agents * blocking / (agents - load * (1 - blocking))
    spare = agents * services - arrivals
    mean = waits / spare
    return QueueFigures(waits, 0.0, mean, mean, 1 - waits * exp(-spare * threshold_s), load / agents)


def erlang_a(
    agents: int, arrivals: float, services: float, impatience: float, threshold_s: float
) -> QueueFigures:
    """Figures of M/M/n+M: each waiting caller hangs up after an exponential patience with mean 1/θ.

    State probabilities by a recursion outwards from the most probable state, so that nothing over- or underflows:
    p(j+1)/p(j) = λ/(min(j+1, n)μ + (j+1−n)⁺θ). From them P(W > 0) = P(j ≥ n) (Poisson arrivals see time averages) and,
    with the mean queue Q, P(Ab) = θQ/λ and E[W] = Q/λ (Little). The virtual wait V, what a caller of infinite patience
    would wait, has P(V = 0) = P(j < n) and the density λp(n−1)·exp(λ(1 − e^(−θx))/θ − nμx); a caller is answered within
    T when V ≤ T and his patience is longer than V, hence the service level and, by the same integral with x, the mean
    wait of the answered.
    """
    assert agents >= 1
    assert min(arrivals, services, impatience) > 0
    below, last_below_log, queue_mean = _states(agents, arrivals, services, impatience)

    leaving = agents * services + impatience

    def exponent(x: float) -> float:
        return -arrivals * expm1(-impatience * x) / impatience - leaving * x

    def answered_density(x: float) -> float:
        return arrivals * exp(last_below_log + exponent(x))

    abandonment = impatience * queue_mean / arrivals
    # The exponent is concave: from its peak on we double until an answer is 1e-19 times as likely as there.
    peak_s = max(0.0, log(arrivals / leaving) / impatience)
    far_s = peak_s + 1 / leaving
    while exponent(far_s) > exponent(peak_s) - 45:
        far_s += far_s - peak_s
    in_time = _integral(answered_density, 0.0, min(threshold_s, far_s)) if threshold_s > 0 else 0.0
    waited = _integral(lambda x: x * answered_density(x), 0.0, far_s)
    return QueueFigures(
        wait_probability=1 - below,
        abandonment=abandonment,
        mean_wait_s=queue_mean / arrivals,
        speed_of_answer_s=waited / (1 - abandonment),
        service_level=below + in_time,
        occupancy=arrivals * (1 - abandonment) / (agents * services),
    )


def _states(agents: int, arrivals: float, services: float, impatience: float) -> tuple[float, float, float]:
    """P(j < n), the logarithm of P(j = n − 1), and the mean number waiting."""

    def leaving(state: int) -> float:
        return min(state, agents) * services + max(0, state - agents) * impatience

    mode = int(arrivals / services)
    if mode >= agents:
        mode = agents + int(max(0.0, arrivals - agents * services) / impatience)
    weights = {mode: 1.0}
    state, weight = mode, 1.0
    while weight > 1e-20:
        weight *= arrivals / leaving(state + 1)
        state += 1
        weights[state] = weight
    state, weight = mode, 1.0
    while state > 0 and weight > 1e-20:
        weight *= leaving(state) / arrivals
        state -= 1
        weights[state] = weight
    total = sum(weights.values())
    below = sum(weight for state, weight in weights.items() if state < agents) / total
    queue_mean = sum((state - agents) * weight for state, weight in weights.items() if state > agents) / total
    # p(n − 1) may lie far below what a float can hold; its logarithm is found by walking down from the mode.
    last_log = -log(total)
    for state in range(mode, agents - 1, -1):
        last_log += log(leaving(state) / arrivals)
    for state in range(mode + 1, agents):
        last_log += log(arrivals / leaving(state))
    assert isfinite(last_log)
    return below, last_log, queue_mean


def _integral(function: Callable[[float], float], start: float, end: float, pieces: int = 20_000) -> float:
    """Simpson's rule with ``pieces`` (even) intervals: the densities here are smooth."""
    assert pieces % 2 == 0
    assert end < inf
    step = (end - start) / pieces
    total = function(start) + function(end)
    total += 4 * sum(function(start + k * step) for k in range(1, pieces, 2))
    total += 2 * sum(function(start + k * step) for k in range(2, pieces, 2))
    return total * step / 3
