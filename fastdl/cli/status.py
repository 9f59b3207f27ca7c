"""Exit statuses of the command."""

#: A bad argument, a missing package, a broken file; argparse's own.
BAD_USE = 2
#: Ctrl-C, as shells report it: 128 + SIGINT.
INTERRUPTED = 130
