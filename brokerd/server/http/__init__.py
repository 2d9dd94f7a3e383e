"""HTTP on a Unix socket (docs/http.md): the same methods, rules, charges and audit as MessagePack-RPC."""
