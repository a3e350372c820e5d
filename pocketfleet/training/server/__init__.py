"""The service that real phones talk to, around the coordinator; see docs/protocol.md and docs/service.md.

Read ``protocol``, then ``app``, then what it calls.
"""
