"""``seqnets completion``: tab completion in bash, by Hydra's own engine."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from seqnets.cli.names import UsageError

_BASH = r"""_seqnets() {
    local word="${COMP_WORDS[COMP_CWORD]}"
    COMPREPLY=($(compgen -W "$(COMP_LINE="${COMP_LINE:0:COMP_POINT}" "$1" completion query 2>/dev/null)" -- "$word"))
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} != *[=./] ]] && compopt +o nospace
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _seqnets seqnets
"""  # noqa: E501


_BASHRC = '  Put this into ~/.bashrc: eval "$(seqnets completion bash)"'

_HELP = f"""\
seqnets completion bash: print the script by which bash completes verbs and keys.
{_BASHRC}
"""


def complete(arguments: Sequence[str]) -> None:
    """Print the script for a shell (``bash``), or the completions of ``COMP_LINE`` (``query``).

    Raises:
        UsageError: The shell is not supported.
    """
    asked = " ".join(arguments)
    if asked in ("--help", "-h"):
        print(_HELP, end="")
    elif asked == "bash":
        print(_BASH, end="")
    elif asked == "query":
        _query(os.environ.get("COMP_LINE", ""))
    else:
        raise UsageError(f"completion: is for {asked or 'no shell'}, expected bash.\n{_BASHRC}")


def _query(line: str) -> None:
    from seqnets.cli.listing import KINDS
    from seqnets.cli.main import VERBS

    words = line.split()
    if len(words) < 2 or (len(words) == 2 and not line.endswith(" ")):
        print(" ".join(VERBS))
    elif words[1] == "list":
        print(" ".join(KINDS))
    elif words[1] in VERBS and words[1] != "completion":
        from seqnets.cli.application import run
        from seqnets.cli.arguments import config_flags

        os.environ["COMP_LINE"] = re.sub(r"^\s*\S+\s+\S+", "seqnets", line)
        run(words[1], [*config_flags(words), "--shell-completion", "query=bash"])
