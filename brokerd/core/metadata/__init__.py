"""The metadata endpoints of clouds, as their SDKs ask for credentials: requests in, answers out (docs/metadata.md)."""
