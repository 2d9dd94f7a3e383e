"""HTTP/1.1 messages as brokerd-proxy reads and forwards them: bytes in, bytes out."""
