#!/usr/bin/env bash
# Check that the engine is correct and fast on this machine's GPU, in less than 10 minutes.
#
#     scripts/gpu_acceptance.sh [FOLDER]     # default: outputs/gpu
#
# Each part has a time limit and a log in FOLDER; a failure does not stop the others. A table comes
# last, and the exit status is 1 if any part failed. PYTHON is the interpreter (default: python3).
set -u

case ${1:-} in -*)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    [ "$1" = --help ] || [ "$1" = -h ]
    exit ;;
esac

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=${1:-$root/outputs/gpu}
out=$(mkdir -p "$out" && cd "$out" && pwd) && rm -f "$out"/*.log "$out"/cuda.* || exit 2
cd "$root" || exit 2
python=${PYTHON:-python3}
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"

if ! "$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    echo "gpu_acceptance: torch finds no GPU here (interpreter: $python), so there is nothing to check." >&2
    exit 2
fi

hydra=false
if "$python" -c "import hydra" 2>/dev/null; then
    hydra=true
else
    echo "gpu_acceptance: hydra is not installed, so nothing will be timed (pip install hydra-core)." >&2
fi

names=() ends=() times=() failed=0

note() {  # NAME END SECONDS
    names+=("$1") ends+=("$2") times+=("$3")
}

part() {  # NAME LIMIT COMMAND...: run for at most LIMIT seconds, and record how it ends
    local name=$1 limit=$2 begun=$SECONDS code
    shift 2
    echo "== $name"
    timeout --kill-after=5 "$limit" "$@" >"$out/$name.log" 2>&1
    code=$?
    tail -n 25 "$out/$name.log"
    case $code in
        0) note "$name" "passed" $((SECONDS - begun)) ;;
        124 | 137) note "$name" "FAILED: longer than $limit s" $((SECONDS - begun)) ;;
        *) note "$name" "FAILED: $code" $((SECONDS - begun)) ;;
    esac
    [ "$code" -eq 0 ] || failed=1
}

sanitizer() {
    command -v compute-sanitizer && return
    local home
    for home in "${CUDA_HOME:-}" /usr/local/cuda; do
        [ -x "$home/bin/compute-sanitizer" ] && echo "$home/bin/compute-sanitizer" && return
    done
    return 1
}

side_by_side=()  # most of the time goes into compilers
"$python" -c "import xdist" 2>/dev/null && side_by_side=(-n 4)
part features 80 "$python" -m pytest -q -p no:cacheprovider -W default \
    ${side_by_side[@]+"${side_by_side[@]}"} tests/engine/test_cuda.py
part checks 130 "$python" scripts/gpu_checks.py "$out/checks" --seconds 75 --max-spills 128

if sanitizer=$(sanitizer); then
    for tool in memcheck racecheck; do
        # Without torch's caching allocator, the sanitizer sees the bounds of each tensor.
        part "$tool" 40 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --tool "$tool" \
            --error-exitcode 9 --print-limit 10 \
            "$python" scripts/gpu_checks.py "$out/$tool" --backend triton,scan --small --seconds 25
    done
else
    note memcheck "not run: no compute-sanitizer here" 0
    note racecheck "not run: no compute-sanitizer here" 0
fi

if $hydra; then
    plot=$("$python" -c "import matplotlib" 2>/dev/null && echo true || echo false)
    part benchmark 215 env COLUMNS=160 "$python" -m seqnets benchmark suite=cuda time_limit=130 \
        "plot=$plot" "output=$out/cuda.json"
    part training 80 "$python" scripts/measure_training.py --device cuda --steps 100 \
        --rounds 8 --output "$out/training.json"
else
    failed=1
    note benchmark "FAILED: hydra is not installed" 0
    note training "FAILED: hydra is not installed" 0
fi

[ -s "$out/cuda.md" ] && sed -n '/^## What to reach/,/^## [^W]/{/^## /d;p}' "$out/cuda.md"
printf '%-12s %6s  %s\n' part "s" ""
for i in "${!names[@]}"; do
    printf '%-12s %6s  %s\n' "${names[$i]}" "${times[$i]}" "${ends[$i]}"
done
exit $failed
