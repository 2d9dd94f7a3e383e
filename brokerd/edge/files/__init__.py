"""Files and directories: who owns them, who can change them, how they are read and written."""
