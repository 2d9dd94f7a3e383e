"""Five real brokerds on five hosts, three etcd nodes and a strict provider, with faults; a checker reads it all."""
