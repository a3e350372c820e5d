"""How a model becomes a program that trains on a phone.

Read in this order: ``program`` (a task's three methods as graphs), ``decompositions`` and ``convolution`` (what a
runtime lacks or gets wrong), ``executorch`` and ``onnx`` (graphs to files, and who runs these), ``session`` (one
interface to eager PyTorch and both runtimes), ``gate`` (what a program must show before it leaves), ``footprint`` (what
it costs) and ``recount`` (whether its files cost that), ``manifest`` and ``bundle`` (the folder that goes
to a phone). Neither runtime is imported before it is used.
"""

from pocketfleet.export.bundle import Bundle, export_bundle, verify_bundle
from pocketfleet.export.footprint import Footprint
from pocketfleet.export.gate_report import GateReport
from pocketfleet.export.session import EagerSession, Session, open_session

__all__ = [
    "Bundle",
    "EagerSession",
    "Footprint",
    "GateReport",
    "Session",
    "export_bundle",
    "open_session",
    "verify_bundle",
]
