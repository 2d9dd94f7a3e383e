"""brokerd-proxy as a process beside a real daemon, in front of an upstream of our own that can misbehave."""
