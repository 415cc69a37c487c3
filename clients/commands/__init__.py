"""One file for each command. They are imported when they are run, see `exeunt.clients.catalogue`."""
