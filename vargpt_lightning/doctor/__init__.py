"""What this machine can do and whether settings act, each found out by a real small call: `vargpt doctor`.

Nothing here is used by training or inference; checks call their public functions, as the GPU tests do.
"""
