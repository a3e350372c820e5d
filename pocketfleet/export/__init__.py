"""How a model becomes a program that trains on a phone.

Read in this order: ``exporter`` (the two calls), ``plan``, ``signature`` (what a program takes and returns),
``flat_method`` and ``program`` (a task's three methods as functions of flat tensors, and as graphs) and ``layers``
(which module an operator comes from); ``decompositions``, ``convolution`` and ``pooling`` (what a runtime
lacks or gets wrong); ``executorch`` with ``xnnpack`` and ``delegated_predict``, and ``onnx`` (graphs to files, and who
runs these); ``session`` (one interface to eager PyTorch and both runtimes); ``gate`` and ``gate_trial`` (what a program
must show before it leaves); ``footprint`` (what it costs), ``recount`` (whether its files cost that) and
``explanation``; ``manifest`` and ``bundle`` (the folder that goes to a phone), ``verification``, ``snippets`` (an app's
training loop). Extras of ExecuTorch's are ``int8_predict`` and ``training_module``; ``onnx_profile`` and
``executorch_profile`` say where a step's time goes.
Neither runtime is imported before it is used.
"""

from pocketfleet.export.bundle import Bundle
from pocketfleet.export.exporter import export_bundle, export_task
from pocketfleet.export.footprint import Footprint
from pocketfleet.export.gate_report import GateReport
from pocketfleet.export.session import EagerSession, Session, open_session
from pocketfleet.export.snippets import write_snippets
from pocketfleet.export.verification import verify_bundle
from pocketfleet.training.model_task import ModelTask

__all__ = [
    "Bundle",
    "EagerSession",
    "Footprint",
    "GateReport",
    "ModelTask",
    "Session",
    "export_bundle",
    "export_task",
    "open_session",
    "verify_bundle",
    "write_snippets",
]
