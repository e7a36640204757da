"""Series of Budgets, read at scrape time from what the watch knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from finetune_api.contract import metrics as names
from finetune_operator.feed_budgets import BudgetFeed


class BudgetCollector(Collector):
    """A Budget that is gone leaves no series. Only the leader has them."""

    def __init__(self, feed: BudgetFeed, *, is_leader: Callable[[], bool]) -> None:
        self._feed = feed
        self._is_leader = is_leader

    def describe(self) -> Iterator[Metric]:
        """Nothing fixed: series exist only for Budgets."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All series of all Budgets."""
        if not self._is_leader():
            return
        families = {name: GaugeMetricFamily(name, name.help, labels=name.labels) for name in names.BUDGETS}
        for namespace, shown in self._feed:
            for name, amount in zip(names.BUDGET_AMOUNTS, (shown.balance, shown.reserved, shown.settled), strict=True):
                families[name].add_metric((namespace, shown.currency), float(amount))
            if shown.quota is not None:
                families[names.BUDGET_QUOTA].add_metric((namespace,), shown.quota)
                families[names.BUDGET_CHECKPOINTS].add_metric((namespace,), shown.checkpoints)
        yield from families.values()
