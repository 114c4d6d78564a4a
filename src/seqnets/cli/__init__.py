"""The command line: ``seqnets train | evaluate | generate | list | completion``."""
