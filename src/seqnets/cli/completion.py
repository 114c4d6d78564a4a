"""``seqnets completion``: tab completion in bash, zsh and fish, by Hydra's own engine."""

from __future__ import annotations

import os
import shlex
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

_ZSH = r"""_seqnets() {
    local -a found
    local line="${(j: :)words[1,CURRENT-1]} $IPREFIX$PREFIX"
    found=(${=$(COMP_LINE="$line" ${~words[1]} completion query 2>/dev/null)})
    (( $#found )) || { _files; return }
    compadd -S '' -- ${(M)found:#*[=./]}
    compadd -- ${found:#*[=./]}
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _seqnets seqnets
"""

_FISH = r"""function __seqnets
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    set -lx COMP_LINE (commandline --current-process --cut-at-cursor)
    set -l found ($words[1] completion query 2>/dev/null | string split --no-empty ' ')
    if set -q found[1]
        printf '%s\n' $found
    else
        __fish_complete_path (commandline --current-token --cut-at-cursor)
    end
end
complete --command seqnets --no-files --arguments '(__seqnets)'
"""

_SHELLS = {
    "bash": (_BASH, '~/.bashrc: eval "$(seqnets completion bash)"'),
    "zsh": (_ZSH, '~/.zshrc: eval "$(seqnets completion zsh)"'),
    "fish": (_FISH, "~/.config/fish/config.fish: seqnets completion fish | source"),
}
"""The script of each shell, and what a user puts into which file to run it."""

_ADVICE = "\n".join(f"  Put this into {line}" for _, line in _SHELLS.values())

_HELP = f"""\
seqnets completion SHELL: print the script by which bash, zsh or fish completes verbs and keys.
{_ADVICE}
"""


def complete(arguments: Sequence[str]) -> None:
    """Print the script for a shell, or the completions of ``COMP_LINE`` (``query``).

    Raises:
        UsageError: The shell is not supported.
    """
    asked = " ".join(arguments)
    if asked in ("--help", "-h"):
        print(_HELP, end="")
    elif asked in _SHELLS:
        print(_SHELLS[asked][0], end="")
    elif asked == "query":
        _query(os.environ.get("COMP_LINE", ""))
    else:
        expected = ", ".join(_SHELLS)
        raise UsageError(
            f"completion: is for {asked or 'no shell'}, expected one of {expected}.\n{_ADVICE}"
        )


def _query(line: str) -> None:
    from seqnets.cli.listing import KINDS
    from seqnets.cli.main import VERBS

    try:
        words = shlex.split(line)
    except ValueError:  # a quote that is not closed yet
        return
    if len(words) < 2 or (len(words) == 2 and not line.endswith(" ")):
        print(" ".join(VERBS))
    elif words[1] == "list":
        print(" ".join(KINDS))
    elif words[1] in VERBS and words[1] != "completion":
        from seqnets.cli.application import run
        from seqnets.cli.arguments import config_flags, is_read, quoted

        last = "" if line[-1].isspace() else words.pop()
        given = map(quoted, words[2:])
        read = [word for word in given if is_read(word) and word.split() == [word]]
        several = ["-m"] * (not {"-m", "--multirun"}.isdisjoint(words))
        os.environ["COMP_LINE"] = " ".join(["seqnets", *several, *read, last])
        run(words[1], [*config_flags(words), "--shell-completion", "query=bash"])
