#!/bin/sh
# Make a Python environment with the LeRobot library beside CPU torch, for test_lerobot_library.py:
#     sh tests/train/record/lerobot_venv.sh DIR
#     JETSIGHT_LEROBOT=DIR/bin/lerobot-python pytest -m slow tests/train/record/test_lerobot_library.py
# LeRobot's own requirements bring CUDA and a hundred packages; its dataset module needs these. Let
# pip find a CPU build of torch, for example through PIP_EXTRA_INDEX_URL.
set -eu
dir=${1:?usage: lerobot_venv.sh DIR}
"${PYTHON:-python3}" -m venv "$dir"
dir=$(cd "$dir" && pwd)
pip="$dir/bin/pip install --quiet --disable-pip-version-check"
$pip "torch==2.13.0"
$pip "datasets>=4,<5" "huggingface-hub>=0.34.2,<0.36" "av>=15,<16" "packaging<26" pandas pillow \
    "draccus==0.10.0" jsonlines einops "accelerate>=1.10" termcolor "deepdiff<9"
# torchvision and torchcodec have versions for this torch, but only those up to 0.13 of torchcodec
# load without CUDA.
$pip --no-deps "lerobot==0.4.4" "torchvision==0.28.0" "torchcodec==0.13.0"

# torchcodec looks for FFmpeg under its plain names; PyAV's wheel has it under hashed ones.
site=$("$dir/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$dir/ffmpeg"
for file in "$site"/av.libs/lib*.so.*; do
    name=$(basename "$file" | sed -E 's/-[0-9a-f]{8}\.so\.([0-9]+).*/.so.\1/')
    ln -sf "$file" "$dir/ffmpeg/$name"
done
cat > "$dir/bin/lerobot-python" <<END
#!/bin/sh
LD_LIBRARY_PATH="$dir/ffmpeg:$site/av.libs" exec "$dir/bin/python" "\$@"
END
chmod +x "$dir/bin/lerobot-python"
"$dir/bin/lerobot-python" -c 'from torchcodec.decoders import VideoDecoder'
echo "$dir/bin/lerobot-python"
