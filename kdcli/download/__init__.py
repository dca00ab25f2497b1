"""What ``kd data get`` gets: tasks from the Hub, files from an address, as files that the other commands take."""
