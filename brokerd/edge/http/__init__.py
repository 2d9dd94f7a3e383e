"""HTTP requests to providers: DNS, connections, proxies, TLS, requests, answers."""
