"""What brokerctl shows a person in a browser: a login, and the page of brokerd."""
