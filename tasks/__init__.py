"""seqio tasks: importing `tasks.<name>` registers that data set's tasks and reads nothing."""
