"""``python -m seqnets``: the command line."""

from seqnets.cli.main import main

main()
