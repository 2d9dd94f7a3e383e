"""The commands of brokerctl, one file for each group."""
