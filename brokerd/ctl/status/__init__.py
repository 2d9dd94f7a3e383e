"""What `brokerctl status` shows: the overview, one grant, and the screen of --watch."""
