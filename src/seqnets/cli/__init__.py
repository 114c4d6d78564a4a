"""The command line: ``seqnets VERB KEY=VALUE ...``, each verb in a file of its name."""
