"""The page of brokerd, and brokerctl page that shows it: in a real browser, and attempts to get in."""
