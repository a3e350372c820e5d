"""A bundle's training loop as source text, one file a language, to copy into an app.

Read in this order: ``folder`` (which files a bundle gets), ``inputs`` (what a loop must know of a bundle), ``template``
(how text is filled in), and ``python``, ``node``, ``kotlin`` and ``swift``, each beside its file in ``templates/``.
"""

from pocketfleet.export.snippets.folder import write_snippets

__all__ = ["write_snippets"]
