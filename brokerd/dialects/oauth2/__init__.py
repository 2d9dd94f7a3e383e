"""The OAuth 2.0 dialect (RFC 6749): dialect.py joins the other modules."""
