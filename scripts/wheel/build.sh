#!/bin/sh
# Builds the Python wheel into dist/: build.sh LOOKBOOK. The program in it is compiled once more, for a small size (the profile
# `dist`); LOOKBOOK is a built one, which prints the manual pages and completions. The wheel also holds the pretrained encoders
# and all licences, and depends on the package onnxruntime. CARGO names another cargo, ARCH another processor (rustup target add
# $ARCH-unknown-linux-gnu).
set -eu
lookbook=$1
host=$(uname -m)
arch=${ARCH:-$host}
cd -- "$(dirname -- "$0")/../.."

# The newest C library that the program may need: what RHEL 8, Debian 10, Ubuntu 20.04 and the onnxruntime wheels have.
platform=manylinux_2_28

scripts/install_environment.sh wheel
# In the checkout, even if cargo's target folder is elsewhere.
scripts/install_encoder.sh

# What pyproject.toml names: files that are installed below the environment.
share=target/wheel/lookbook.data/data/share
rm -rf target/wheel
mkdir -p "$share/bash-completion/completions" "$share/zsh/site-functions" "$share/fish/vendor_completions.d" \
    "$share/lookbook/encoder" "$share/doc/lookbook"
"$lookbook" man --output "$share/man/man1"
"$lookbook" completions bash >"$share/bash-completion/completions/lookbook"
"$lookbook" completions zsh >"$share/zsh/site-functions/_lookbook"
"$lookbook" completions fish >"$share/fish/vendor_completions.d/lookbook.fish"
cp .encoder/*.safetensors .encoder/LICENSE "$share/lookbook/encoder/"
.wheel/bin/python scripts/wheel/third_party.py "$arch-unknown-linux-gnu" >"$share/doc/lookbook/THIRD-PARTY-LICENSES.txt"

# Messages name crates, not the folders of this machine.
for folder in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
    RUSTFLAGS="${RUSTFLAGS-} --remap-path-prefix=$folder="
done
export RUSTFLAGS

# The last step optimises the whole program. At a fixed address, as Go's programs are, it has no table of all its pointers.
set -- -- -C opt-level=3 -C relocation-model=static
if [ "$arch" = "$host" ]; then
    set -- "$@" -C linker="$PWD/scripts/wheel/cc.sh"
else
    set -- --zig --target "$arch-unknown-linux-gnu" "$@"
fi
rm -f dist/lookbook-*-"${platform}_$arch".whl
PATH=$PWD/.wheel/bin:$PATH .wheel/bin/maturin build --profile dist --locked --compatibility "$platform" --out dist "$@"
wheel=$(echo dist/lookbook-*-"${platform}_$arch".whl)
.wheel/bin/python scripts/wheel/check_tag.py "$wheel" "${platform}_$arch"
echo "wheel: $wheel" >&2
