"""What hosts that share their grants agree on: keys, values and times. Pure; edge/etcd speaks to the servers."""
