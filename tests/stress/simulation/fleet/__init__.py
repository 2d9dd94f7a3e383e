"""Many hosts that share their grants through a model of etcd: one seed drives their faults."""
