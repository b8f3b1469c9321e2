"""The servers that are measured, one small file each.

Every one keeps the same contract: it binds 127.0.0.1 on a port the kernel picks, prints one line
`listening on 127.0.0.1:PORT`, echoes (or sends what it reads to all its connections), and ends on
SIGTERM. They are written the way the users of each library would write them, with TCP_NODELAY on
everywhere, so that no peer is slowed by us. The WebSocket servers send a message back as it came,
in one frame, without compression, and answer a Close frame with another.
"""
