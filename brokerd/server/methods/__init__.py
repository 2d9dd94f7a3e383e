# The methods of docs/protocol.md: table.py has one row for each, dispatcher.py answers requests by that table.
