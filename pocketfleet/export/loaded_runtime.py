"""A runtime's library, loaded into this process with its number of threads, before anything is measured or limited."""

from pocketfleet.export.session import Runtime

__all__ = ["load_runtime"]


def load_runtime(runtime: Runtime, *, threads: int = 1) -> None:
    """Load what sessions of ``runtime`` run on; torch, which then computes nothing, gets one thread."""
    import torch

    # Torch computes nothing here; its pool would only be memory.
    torch.set_num_threads(1)
    if runtime == "executorch":
        from pocketfleet.export.executorch import limit_threads
        from pocketfleet.export.quiet import quiet_export

        with quiet_export():
            import executorch.runtime  # noqa: F401 - so that it is not part of opening a session
        limit_threads(threads)
    else:
        import onnxruntime  # noqa: F401 - the same
