#!/bin/sh
# Make the environment of plan_vs_stable_worldmodel.py, from the repository's root:
#     sh benchmarks/swm_venv.sh build/swm-venv
# stable-worldmodel's own requirements bring torchvision, Lance and every simulator; its planner and
# its LeWM model import einops, loguru and gymnasium beside numpy and torch. Let pip find a
# CPU build of torch, for example through PIP_EXTRA_INDEX_URL. SWM chooses another stable-worldmodel,
# such as a checkout of its main branch: SWM=../stable-worldmodel sh benchmarks/swm_venv.sh ...
set -eu
dir=${1:?usage: swm_venv.sh DIR}
"${PYTHON:-python3}" -m venv --clear "$dir"
pip="$dir/bin/pip install --quiet --disable-pip-version-check"
$pip -c constraints.txt -e '.[cpu,compile]'
$pip -c constraints.txt einops loguru gymnasium
$pip --no-deps "${SWM:-stable-worldmodel==0.1.1}"
touch "$dir/.ready"
