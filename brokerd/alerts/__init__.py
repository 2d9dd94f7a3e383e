# Who is told when something is wrong: the commands of [[on_event]], and the watch over what will expire.
