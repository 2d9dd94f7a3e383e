"""etcd through its JSON gateway: the Etcd port of core/fleet, on our own HTTP client."""
