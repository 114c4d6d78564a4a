"""The command line: ``seqnets train | evaluate | generate | benchmark | list | completion``."""
