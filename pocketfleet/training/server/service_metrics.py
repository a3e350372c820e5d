"""Counters of a service in Prometheus's text format; see docs/service.md for what each means."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["ServiceMetrics"]

# Seconds: from a local answer to a second's deadline and far beyond it.
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class ServiceMetrics:
    """One service's own, not the process's."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self.check_ins = Counter(
            "pocketfleet_check_ins", "Check-ins by what they were answered.", ["code"], registry=registry
        )
        self.reports = Counter(
            "pocketfleet_reports", "Decided reports by what they were answered.", ["code"], registry=registry
        )
        self.refusals = Counter(
            "pocketfleet_refusals", "Requests that were refused, by code.", ["code"], registry=registry
        )
        self.rounds = Counter("pocketfleet_rounds", "Closed rounds by what closed them.", ["reason"], registry=registry)
        self.dropouts = Counter(
            "pocketfleet_dropouts", "Assignments on which nothing had come by their deadline.", registry=registry
        )
        self.evaluations = Counter(
            "pocketfleet_evaluations",
            "Evaluations that count, by what they were answered.",
            ["code"],
            registry=registry,
        )
        self.releases = Counter(
            "pocketfleet_releases", "Versions by what they became for devices.", ["state"], registry=registry
        )
        self.enrolled = Counter("pocketfleet_enrolments", "Devices that enrolled.", registry=registry)
        self.storage_failures = Counter(
            "pocketfleet_storage_failures", "Times that disk or database did not take something.", registry=registry
        )
        self.version = Gauge("pocketfleet_model_version", "The newest version of the model.", registry=registry)
        self.seconds = Histogram(
            "pocketfleet_request_seconds",
            "Seconds from a request to its answer, by route.",
            ["route"],
            buckets=_BUCKETS,
            registry=registry,
        )

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)
