# `make bench`. Measures from outside: whole processes, real sockets, nothing of brokerd but its two commands.
