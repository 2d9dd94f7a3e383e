"""brokerctl files: keeps files with tokens fresh. A caller of brokerd like any other."""
