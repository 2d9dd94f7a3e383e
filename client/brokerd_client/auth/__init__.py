"""Authentication classes for other libraries, each in a module of that library's name. None is imported here."""
